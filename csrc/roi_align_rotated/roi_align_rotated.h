// RoI Align of rotated boxes (Ma et al., Arbitrary-Oriented Scene Text Detection via Rotation Proposals, 2018):
// launchers, free of torch. Parameters are those of RoI Align, and which way angles turn.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"
#include "roi_align/roi_align.h"

namespace structops {

// The largest sampling_ratio taken: a bin costs its square, as many samples as RoI Align's limit allows an axis.
constexpr int64_t kMaxRotatedSamplingRatio = 256;

constexpr const char* kRotatedColumns = "(batch index, centre x, centre y, width, height, angle)";

namespace cpu {

// input [N, C, H, W] with element strides (n, c, h, w); rois [K, 6] (batch index, centre x, centre y, width, height,
// degrees) with valid indices; output [K, C, PH, PW], dense, in the layout told.
template <class T>
void roi_align_rotated_forward(const RoiAlignParams& p, bool clockwise, const T* input, const int64_t strides[4],
                               const double* rois, T* output, bool output_channels_last, ParallelFor parallel_for);

// grad [K, C, PH, PW] with strides (k, c, h, w); grad_input [N, C, H, W], dense, every element written.
template <class T>
void roi_align_rotated_backward(const RoiAlignParams& p, bool clockwise, const T* grad, const int64_t strides[4],
                                const double* rois, T* grad_input, bool grad_input_channels_last,
                                ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
