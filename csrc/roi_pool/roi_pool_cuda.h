// RoI Pool on the GPU: launchers, free of torch. T is __half, __nv_bfloat16, float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "roi_pool/roi_pool.h"

namespace structops::cuda {

// input [N, C, H, W] with element strides (n, c, h, w); rois [K, 5] (batch index, x1, y1, x2, y2), dense, float or
// double; output [K, C, PH, PW] and argmax [K, C, PH, PW] (null: not wanted), dense, in the layout told. channels_last
// also asks for strides[1] == 1.
template <class T>
cudaError_t roi_pool_forward(const RoiPoolParams& p, const T* input, const int64_t strides[4], const void* rois,
                             bool rois_are_double, T* output, int32_t* argmax, bool channels_last, cudaStream_t stream);

// Bytes of device memory that the backward needs.
size_t roi_pool_backward_workspace(const RoiPoolParams& p);

// grad and argmax [K, C, PH, PW], each with element strides (k, c, h, w); grad_input [N, C, H, W], dense, every element
// written once.
template <class T>
cudaError_t roi_pool_backward(const RoiPoolParams& p, const T* grad, const int64_t grad_strides[4], const void* rois,
                              bool rois_are_double, const int32_t* argmax, const int64_t argmax_strides[4],
                              T* grad_input, bool channels_last, void* workspace, cudaStream_t stream);

}  // namespace structops::cuda
