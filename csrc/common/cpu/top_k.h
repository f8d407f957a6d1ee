// The best k of many scores, in order: what detectors do to every map of logits before anything else.
#pragma once
#include <cmath>
#include <cstdint>

namespace structops::cpu {

// One segment (the scores of an image on one level, or of one class): three dimensions of any strides, in elements.
// The score [i][j][l] has the index (i * size[1] + j) * size[2] + l, whatever its place in memory; fewer than 2^31.
// Leave a dimension out by size 1. Objectness [A, H, W] in the order (y, x, anchor) is {H, W, A}.
template <class T>
struct ScoreMap {
  const T* data;
  int64_t size[3], stride[3];
};

constexpr double kNoFloor = NAN;

// indices [k]: of the k best by falling score, ties by the lower index (-0 ties with +0), NaN last; of those greater
// than `above` only, unless that is kNoFloor. Returns how many there are; the rest of indices is -1.
// T is Half, BFloat16, float or double. Runs on the calling thread: share segments between threads.
template <class T>
int64_t top_k(const ScoreMap<T>& map, int64_t k, double above, int32_t* indices);

}  // namespace structops::cpu
