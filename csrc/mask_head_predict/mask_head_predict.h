// The last layers of a mask head: sizes and CPU launcher, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

struct MaskHeadParams {
  int64_t rois, channels, hidden, classes;
  int64_t height, width;  // of the features; masks are twice as large
};

namespace cpu {

struct WeightStrides;

// features [rois, channels, height, width], dense, NCHW (planar) or NHWC; weight [channels, hidden, 2, 2] by strides;
// logits_weight [classes, hidden]; biases may be null; labels [rois], in range; out [rois, 2 height, 2 width].
template <class S, class A>
void mask_head_predict(const MaskHeadParams& p, const S* features, bool planar, const S* weight,
                       const WeightStrides& strides, const A* bias, const A* logits_weight, const A* logits_bias,
                       const int64_t* labels, S* out, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
