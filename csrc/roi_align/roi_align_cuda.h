// RoI Align on the GPU: launchers, free of torch. T is __half, __nv_bfloat16, float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "roi_align/roi_align.h"

namespace structops::cuda {

// input [N, C, H, W] with element strides (n, c, h, w); rois [K, 5] (batch index, x1, y1, x2, y2), dense, float or
// double; output [K, C, PH, PW], dense, in the layout told. channels_last also asks for strides[1] == 1.
template <class T>
cudaError_t roi_align_forward(const RoiAlignParams& p, const T* input, const int64_t strides[4], const void* rois,
                              bool rois_are_double, T* output, bool channels_last, cudaStream_t stream);

// Bytes of device memory that the backward needs.
size_t roi_align_backward_workspace(const RoiAlignParams& p);

// grad [K, C, PH, PW] with element strides (k, c, h, w); grad_input [N, C, H, W], dense, every element written once.
template <class T>
cudaError_t roi_align_backward(const RoiAlignParams& p, const T* grad, const int64_t strides[4], const void* rois,
                               bool rois_are_double, T* grad_input, bool channels_last, void* workspace,
                               cudaStream_t stream);

// Its second half, for one level of a pyramid: the workspace already holds what each RoI touches (RoiBounds in
// roi_align_bounds.cuh), with images numbered through all levels, those of this one from first_image on.
template <class T>
cudaError_t roi_align_gather(const RoiAlignParams& p, const T* grad, const int64_t strides[4], const void* rois,
                             bool rois_are_double, T* grad_input, bool channels_last, const void* workspace,
                             int64_t first_image, cudaStream_t stream);

}  // namespace structops::cuda
