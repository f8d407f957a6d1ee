// Intersection over union of rotated boxes on the GPU: launchers, free of torch.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "box_iou_rotated/rotated_box.h"

namespace structops::cuda {

// Prepared boxes in device memory, [N] each.
struct RotatedBoxes {
  RotatedBox* boxes;
  RotatedBounds* bounds;
  int64_t size;

  RotatedBoxes(void* workspace, int64_t n)
      : boxes(reinterpret_cast<RotatedBox*>(static_cast<char*>(workspace) + n * sizeof(RotatedBounds))),
        bounds(static_cast<RotatedBounds*>(workspace)),
        size(n) {}
  static constexpr int64_t kBytes = sizeof(RotatedBox) + sizeof(RotatedBounds);  // of workspace for each
};

// boxes [N, 5] (centre x, centre y, width, height, degrees), dense; T is float or double. workspace: N times
// RotatedBoxes::kBytes, 16-byte aligned.
template <class T>
cudaError_t rotated_boxes(const T* boxes, int64_t n, void* workspace, cudaStream_t stream);

// out [N, M]: of each of the boxes that rotated_boxes left in two workspaces. Out is float or double.
template <class Out>
cudaError_t box_iou_rotated(void* workspace1, int64_t n, void* workspace2, int64_t m, Out* out, cudaStream_t stream);

// out [N]: of pairs of rows of boxes1 and boxes2 [N, 5]; T is float or double.
template <class T>
cudaError_t box_iou_rotated_elementwise(const T* boxes1, const T* boxes2, int64_t n, T* out, cudaStream_t stream);

}  // namespace structops::cuda
