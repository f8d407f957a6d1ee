// What the bindings of both position-sensitive ops check, on CPU and CUDA; the same in Python is
// structops/ops/_ps_roi.py.
#pragma once
#include "common/rois.h"
#include "ps_roi_align/ps_roi.h"

namespace structops {

// What the two ops differ by.
struct PsRoiOp {
  const char *forward, *backward;  // names
  bool average;
};

inline void check_ps_channels(const char* op, const char* name, int64_t channels, int64_t pooled_height,
                              int64_t pooled_width) {
  STRUCTOPS_CHECK(channels % (pooled_height * pooled_width) == 0, op, ": ", name,
                  " must have a channel for each class and bin, a multiple of ", pooled_height, " x ", pooled_width,
                  ", got ", channels, " channels");
}

// The parameters of a forward call, checked.
inline PsRoiParams ps_roi_params(const PsRoiOp& op, const Tensor& input, const Tensor& rois, double spatial_scale,
                                 int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  check_rois(op.forward, input, "input", rois);
  check_pooling(op.forward, spatial_scale, pooled_height, pooled_width);
  check_ps_channels(op.forward, "input", input.size(1), pooled_height, pooled_width);
  check_sampling(op.forward, sampling_ratio);
  return {rois.size(0),  input.size(0), input.size(1) / (pooled_height * pooled_width),
          input.size(2), input.size(3), pooled_height,
          pooled_width,  spatial_scale, sampling_ratio,
          op.average};
}

// The same of a backward call.
inline PsRoiParams ps_roi_backward_params(const PsRoiOp& op, const Tensor& grad, const Tensor& rois,
                                          double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                                          int64_t batch_size, int64_t channels, int64_t height, int64_t width,
                                          int64_t sampling_ratio) {
  check_rois(op.backward, grad, "grad", rois);
  check_pooling(op.backward, spatial_scale, pooled_height, pooled_width);
  check_ps_channels(op.backward, "the input", channels, pooled_height, pooled_width);
  check_sampling(op.backward, sampling_ratio);
  const int64_t classes = channels / (pooled_height * pooled_width);
  check_grad(op.backward, grad, rois, classes, pooled_height, pooled_width, batch_size, channels, height, width);
  return {rois.size(0),  batch_size,   classes,       height,         width,
          pooled_height, pooled_width, spatial_scale, sampling_ratio, op.average};
}

}  // namespace structops
