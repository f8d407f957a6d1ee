// Greedy non-maximum suppression of rotated boxes on CPUs, free of torch.
#pragma once
#include <cstdint>
#include <vector>

#include "common/cpu/parallel.h"

namespace structops::cpu {

struct NmsRotatedInput {
  int64_t n;            // < 2^32
  const double* boxes;  // [N, 5] (centre x, centre y, width, height, degrees)
  bool single;          // IoU is rounded to float32 before it is compared
  const int64_t* idxs;  // [N] class of each box, or null
  double iou_threshold;
};

// scores [N], float or double. Returns the kept boxes' indices by falling score, ties by the lower index, NaN scores
// last. A box suppresses the later ones of its class whose IoU with it exceeds the threshold.
template <class T>
std::vector<int64_t> nms_rotated(const NmsRotatedInput& in, const T* scores, ParallelFor parallel_for);

}  // namespace structops::cpu
