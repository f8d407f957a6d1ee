// The last stage of a detector on the CPU, free of torch, which takes exponentials and sigmoids in between.
#pragma once
#include <type_traits>
#include <vector>

#include "common/cpu/parallel.h"
#include "select_detections/select_detections.h"

namespace structops::cpu {

// (row, class) pairs of all images that are still in the race, in the order that decides between equal scores.
template <class T>
struct DetectionCandidates {
  std::vector<int64_t> index;  // [N] row * C + class
  std::vector<T> score;        // [N]
  std::vector<int64_t> begin;  // [B + 1] where each image begins
  int64_t size() const { return begin.back(); }
};

// How many rows of an image are boxes; valid [B] or null.
inline int64_t used_rows(const DetectionParams& p, const int64_t* valid, int64_t image) {
  return valid == nullptr ? p.rows : std::clamp<int64_t>(valid[image], 0, p.rows);
}

// What a storage type is computed in.
template <class S>
using WideOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

// Those of values [B, R, C] that are `least` or more, still without scores, by rising index.
template <class S>
auto detection_candidates(const DetectionParams& p, const S* values, const int64_t* valid, double least,
                          ParallelFor parallel_for) -> DetectionCandidates<WideOf<S>>;

// Drops the candidates whose score is not above the threshold (or NaN).
template <class T>
void keep_above(DetectionCandidates<T>& candidates, T threshold);

// Keeps the `limit` best of each level; levels: sizes that add up to R.
template <class T>
void keep_best_of_levels(const DetectionParams& p, DetectionCandidates<T>& candidates,
                         const std::vector<int64_t>& levels, int64_t limit);

// Lists candidates class by class, and keeps the `limit` best of each.
template <class T>
void keep_best_of_classes(const DetectionParams& p, DetectionCandidates<T>& candidates, int64_t limit);

// Logarithms of sizes, out [N, 2] (width, height), that a box is decoded from.
template <class T>
void detection_sizes(const DetectionParams& p, const DetectionCandidates<T>& candidates, const T* deltas, T* out);

// Outputs as the op has them; exponentials [N, 2], those of detection_sizes, or null with distances; image_sizes
// [B, 2] (height, width).
template <class T>
struct DetectionTensors {
  const T *deltas, *proposals, *image_sizes, *exponentials;
  T *boxes, *scores;         // [B, D, 4], [B, D]
  int64_t *labels, *counts;  // [B, D], [B]
};

template <class T>
void select_detections(const DetectionParams& p, const DetectionCandidates<T>& candidates, const DetectionTensors<T>& t,
                       ParallelFor parallel_for);

}  // namespace structops::cpu
