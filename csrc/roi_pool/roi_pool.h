// RoI Pool (Girshick, Fast R-CNN, 2015): parameters and launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

struct RoiPoolParams {
  int64_t rois;                         // K
  int64_t batch, channels;              // N, C
  int64_t height, width;                // of the feature map; height * width < 2^31
  int64_t pooled_height, pooled_width;  // of the output
  double spatial_scale;                 // feature pixels per image pixel
};

namespace cpu {

// input [N, C, H, W] with element strides (n, c, h, w), that of c (channels_last) or else of w being 1; rois [K, 5]
// (batch index, x1, y1, x2, y2) with valid indices; output [K, C, PH, PW] and argmax [K, C, PH, PW] (null: not wanted),
// dense, in the layout told. An argmax is y * W + x, or -1 for a bin without pixels.
template <class T>
void roi_pool_forward(const RoiPoolParams& p, const T* input, const int64_t strides[4], const double* rois, T* output,
                      int32_t* argmax, bool channels_last, ParallelFor parallel_for);

// grad and argmax [K, C, PH, PW], each with strides (k, c, h, w); grad_input [N, C, H, W], dense, every element
// written. An argmax outside the map counts as -1, and so does all of a RoI that is not finite.
template <class T>
void roi_pool_backward(const RoiPoolParams& p, const T* grad, const int64_t grad_strides[4], const double* rois,
                       const int32_t* argmax, const int64_t argmax_strides[4], T* grad_input, bool channels_last,
                       ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
