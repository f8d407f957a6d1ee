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
  return rotated_box(b[0], b[1], b[2], b[3], b[4]);
}

}  // namespace structops::cuda
