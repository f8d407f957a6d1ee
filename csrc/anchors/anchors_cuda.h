// Anchors, default boxes and grid points on the GPU: launchers, free of torch.
#pragma once
#include <cuda_runtime_api.h>

#include "anchors/grid_rows.h"

namespace structops::cuda {

// What the rows of each level are made of, the rest null. By name: the emulator of the tests passes structs field by
// field.
struct LevelCells {
  const void *l0, *l1, *l2, *l3, *l4, *l5, *l6, *l7;
};

// geometry [levels, kGeometry] and divisors [levels, 2] are on the host. One launch for all levels.

// out [rows, 4] from cells [A, 4] of T: __half, __nv_bfloat16, float or double.
template <class T>
cudaError_t generate_anchors(const LevelCells& cells, const int64_t* geometry, int64_t levels, T* out,
                             cudaStream_t stream);

// out [rows, 4] from pairs [A, 2] of T: float or double.
template <class T>
cudaError_t default_boxes(const LevelCells& pairs, const int64_t* geometry, const double* divisors, int64_t levels,
                          int64_t image_height, int64_t image_width, bool clip, T* out, cudaStream_t stream);

// out [rows, 4] (x, y, stride x, stride y), or [rows, 2] without strides.
template <class T>
cudaError_t yolo_grid(const int64_t* geometry, int64_t levels, double offset, bool with_stride, T* out,
                      cudaStream_t stream);

}  // namespace structops::cuda
