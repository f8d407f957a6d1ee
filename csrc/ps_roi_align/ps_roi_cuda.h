// Position-sensitive RoI pooling on the GPU: launchers of both ops, free of torch. T is __half, __nv_bfloat16, float or
// double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "ps_roi_align/ps_roi.h"

namespace structops::cuda {

// Bytes of device memory that a call needs, forward or backward.
size_t ps_roi_workspace(const PsRoiParams& p, bool data_are_double);

// input [N, C * PH * PW, H, W] with element strides (n, c, h, w); rois [K, 5] (batch index, x1, y1, x2, y2), dense,
// float or double; output [K, C, PH, PW], dense, in the layout told.
template <class T>
cudaError_t ps_roi_forward(const PsRoiParams& p, const T* input, const int64_t strides[4], const void* rois,
                           bool rois_are_double, T* output, bool output_channels_last, void* workspace,
                           cudaStream_t stream);

// grad [K, C, PH, PW] with element strides (k, c, h, w); grad_input [N, C * PH * PW, H, W], dense, every element
// written once.
template <class T>
cudaError_t ps_roi_backward(const PsRoiParams& p, const T* grad, const int64_t strides[4], const void* rois,
                            bool rois_are_double, T* grad_input, bool grad_input_channels_last, void* workspace,
                            cudaStream_t stream);

}  // namespace structops::cuda
