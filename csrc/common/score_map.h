// Maps of scores of which the best k are wanted (common/cpu/top_k.h, common/cuda/top_k.h): how they lie in memory.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace structops {

// One segment (the scores of an image on one level, or of one class): three dimensions of any strides, in elements.
// The score [i][j][l] has the index (i * size[1] + j) * size[2] + l, whatever its place in memory; fewer than 2^31.
// Leave a dimension out by size 1. Objectness [A, H, W] in the order (y, x, anchor) is {H, W, A}.
struct ScoreShape {
  int64_t size[3], stride[3];

  int64_t count() const { return size[0] * size[1] * size[2]; }
};

// For `above`, where every score is wanted.
constexpr double kNoFloor = NAN;

// The axes in the order of memory, innermost first, joined where they follow each other in memory and index alike: a
// channels_last map is one axis, a contiguous one has one for pixels and one for anchors.
struct ScoreWalk {
  struct Axis {
    int64_t size = 1, stride = 0, step = 0;  // step: of the index
  };
  Axis axis[3];

  explicit ScoreWalk(const ScoreShape& shape) {
    Axis all[3];
    for (int64_t d = 2, step = 1; d >= 0; step *= shape.size[d--]) all[d] = {shape.size[d], shape.stride[d], step};
    std::sort(all, all + 3, [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
    int axes = 0;
    for (const Axis& a : all) {
      if (a.size == 1) continue;
      Axis& last = axis[axes > 0 ? axes - 1 : 0];
      if (axes > 0 && a.stride == last.stride * last.size && a.step == last.step * last.size)
        last.size *= a.size;
      else
        axis[axes++] = a;
    }
    // Rows of three anchors would be all beginning and end: the longest axis is walked instead.
    constexpr int64_t kShort = 32;
    if (axis[0].size < kShort)
      std::swap(axis[0], *std::max_element(axis, axis + 3, [](auto& a, auto& b) { return a.size < b.size; }));
  }
};

}  // namespace structops
