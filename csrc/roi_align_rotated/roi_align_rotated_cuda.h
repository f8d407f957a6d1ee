// RoI Align of rotated boxes on the GPU: launchers, free of torch. T is __half, __nv_bfloat16, float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "roi_align_rotated/roi_align_rotated.h"

namespace structops::cuda {

// Bytes of device memory that either kernel needs.
size_t roi_align_rotated_workspace(const RoiAlignParams& p);

// input [N, C, H, W] with element strides (n, c, h, w); rois [K, 6] (batch index, centre x, centre y, width, height,
// degrees), dense, float or double; output [K, C, PH, PW], dense, in the layout told. channels_last also asks for
// strides[1] == 1.
template <class T>
cudaError_t roi_align_rotated_forward(const RoiAlignParams& p, bool clockwise, const T* input, const int64_t strides[4],
                                      const void* rois, bool rois_are_double, T* output, bool channels_last,
                                      void* workspace, cudaStream_t stream);

// grad [K, C, PH, PW] with element strides (k, c, h, w); grad_input [N, C, H, W], dense, every element written once.
template <class T>
cudaError_t roi_align_rotated_backward(const RoiAlignParams& p, bool clockwise, const T* grad, const int64_t strides[4],
                                       const void* rois, bool rois_are_double, T* grad_input, bool channels_last,
                                       void* workspace, cudaStream_t stream);

}  // namespace structops::cuda
