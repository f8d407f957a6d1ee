// Position-sensitive RoI pooling (R-FCN, Dai et al., 2016; Align as in Light-Head R-CNN, Li et al., 2017): parameters
// and launchers of both ops, free of torch.
//
// Class c and bin (ph, pw) read channel (c * PH + ph) * PW + pw of the map. In both ops a bin is (row weights) . map .
// (column weights); they differ in those weights alone, so one family of kernels serves the two.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

struct PsRoiParams {
  int64_t rois;                         // K
  int64_t batch, classes;               // N, C
  int64_t height, width;                // of the feature map
  int64_t pooled_height, pooled_width;  // of the output
  double spatial_scale;                 // feature pixels per image pixel
  int64_t sampling_ratio;               // of Align; <= 0: adaptive
  bool average;                         // Pool: bins are means of whole pixels; else Align: of bilinear samples
};

namespace cpu {

// input [N, C * PH * PW, H, W] with element strides (n, c, h, w); rois [K, 5] (batch index, x1, y1, x2, y2) with
// valid indices; output [K, C, PH, PW], dense, in the layout told.
template <class T>
void ps_roi_forward(const PsRoiParams& p, const T* input, const int64_t strides[4], const double* rois, T* output,
                    bool output_channels_last, ParallelFor parallel_for);

// grad [K, C, PH, PW] with strides (k, c, h, w); grad_input [N, C * PH * PW, H, W], dense, every element written.
template <class T>
void ps_roi_backward(const PsRoiParams& p, const T* grad, const int64_t strides[4], const double* rois, T* grad_input,
                     bool grad_input_channels_last, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
