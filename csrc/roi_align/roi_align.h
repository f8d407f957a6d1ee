// RoI Align (He et al., Mask R-CNN, 2017): parameters and launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

struct RoiAlignParams {
  int64_t rois;                         // K
  int64_t batch, channels;              // N, C
  int64_t height, width;                // of the feature map
  int64_t pooled_height, pooled_width;  // of the output
  double spatial_scale;                 // feature pixels per image pixel
  int64_t sampling_ratio;               // <= 0: adaptive
  bool aligned;                         // subtract half a pixel, no minimum size
};

// A RoI is on the map of a pyramid that its level says. Instead of one: zeros, NaN; neither has a gradient.
constexpr int64_t kMaxLevels = 8;
constexpr int kNoLevel = -1, kBadLevel = -2;

namespace cpu {

// A level of a pyramid, or the only map.
struct RoiAlignMap {
  RoiAlignParams p;    // of the call, with the size and scale of this map
  const void* data;    // [N, C, H, W]
  int64_t strides[4];  // (n, c, h, w), in elements
};

// maps [levels] of the same N and C; rois [K, 5] (batch index, x1, y1, x2, y2) with valid indices; level [K], or null:
// all on the first map; output [K, C, PH, PW], dense, in the layout told.
template <class T>
void roi_align_forward(const RoiAlignMap* maps, const double* rois, const int8_t* level, T* output,
                       bool output_channels_last, ParallelFor parallel_for);

// grad [K, C, PH, PW] with strides (k, c, h, w); grad_input [N, C, H, W], dense, every element written.
template <class T>
void roi_align_backward(const RoiAlignParams& p, const T* grad, const int64_t strides[4], const double* rois,
                        T* grad_input, bool grad_input_channels_last, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
