// Rotated boxes on the GPU, and the IoU of a pair.
#pragma once
#include "box_iou_rotated/box_iou_rotated_cuda.h"
#include "common/cuda/device.cuh"

namespace structops::cuda {

#include "box_iou_rotated/rotated_iou.h"

// boxes [.., 5] of float or double.
template <class T>
__device__ __forceinline__ RotatedBox read_box(const T* __restrict__ boxes, int64_t i) {
  const T* b = boxes + 5 * i;
  const double degrees = b[4];
  const Rotation turn = rotation(degrees - degrees == 0.0 ? degrees : 0.0);
  return rotated_box(double(b[0]), double(b[1]), double(b[2]), double(b[3]), degrees, turn.cos, turn.sin);
}

__device__ __forceinline__ RotatedBounds bounds_of(const RotatedBox& box) {
  const RotatedBoundsOf<double> around = rotated_bounds(box);
  return {static_cast<float>(around.x1), static_cast<float>(around.y1), static_cast<float>(around.x2),
          static_cast<float>(around.y2)};
}

}  // namespace structops::cuda
