// Greedy non-maximum suppression of rotated boxes on the GPU: launchers, free of torch.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace structops::cuda {

// Boxes are taken in the order of class, then falling score; without classes, of falling score.
struct NmsRotatedInput {
  int64_t n;
  const int64_t* by_score;  // [N] box of each rank, by falling score
  const int64_t* by_class;  // [N] rank of each place, where places are sorted by class, then rank; null: place = rank
  const int64_t* classes;   // [N] class of each place, rising; null with by_class
  double iou_threshold;
};

// Bytes of device memory that nms_rotated needs: linear in n.
size_t nms_rotated_workspace(int64_t n);

// keep [N] by rank; boxes [N, 5] (centre x, centre y, width, height, degrees), dense, of T: float or double, which the
// IoU is rounded to. Nothing waits for the GPU.
template <class T>
cudaError_t nms_rotated(const NmsRotatedInput& in, const T* boxes, void* workspace, bool* keep, cudaStream_t stream);

}  // namespace structops::cuda
