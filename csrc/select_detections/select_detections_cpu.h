// The last stage of a detector on the CPU, free of torch, which takes exponentials and sigmoids in between.
#pragma once
#include <type_traits>
#include <vector>

#include "common/cpu/parallel.h"
#include "select_detections/select_detections.h"

namespace structops::cpu {

// (row, class) pairs of all images with a score above the threshold, in the order that decides between equal scores.
template <class T>
struct DetectionCandidates {
  std::vector<int64_t> row;    // [N]
  std::vector<int32_t> label;  // [N]
  std::vector<T> score;        // [N]
  std::vector<int64_t> begin;  // [B + 1] where each image begins
  int64_t size() const { return begin.back(); }
};

// What a storage type is computed in.
template <class S>
using WideOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

// Those of values [B, R, C] that are `least` or more, still without scores, row by row. valid [B] or null.
template <class S>
auto detection_candidates(const DetectionParams& p, const S* values, const int64_t* valid, double least,
                          ParallelFor parallel_for) -> DetectionCandidates<WideOf<S>>;

// Drops the candidates whose score is not above the threshold (or NaN).
template <class T>
void keep_above(DetectionCandidates<T>& candidates, T threshold);

// At most so many candidates of each group go on.
struct DetectionLimits {
  int64_t limit;                       // 0: all
  bool by_class;                       // groups are classes; else levels
  const std::vector<int64_t>& levels;  // sizes that add up to R
};

// Takes n exponentials in place: torch's own.
template <class T>
using Exponentials = void (*)(T* values, int64_t n);

// deltas, proposals and image_sizes as the op has them, dense.
template <class T>
struct DetectionTensors {
  const T *deltas, *proposals, *image_sizes;
  T *boxes, *scores;         // [B, D, 4], [B, D]
  int64_t *labels, *counts;  // [B, D], [B]
};

// Reorders the candidates where classes are limited.
template <class T>
void select_detections(const DetectionParams& p, const DetectionLimits& limits, DetectionCandidates<T>& candidates,
                       const DetectionTensors<T>& tensors, Exponentials<T> exponentials, ParallelFor parallel_for);

}  // namespace structops::cpu
