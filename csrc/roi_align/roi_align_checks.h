// Argument checks that the CPU and CUDA bindings of RoI Align share.
#pragma once
#include "common/tensor.h"
#include "roi_align/roi_align.h"

namespace structops {

inline void check_rois(const char* op, const Tensor& features, const char* features_name, const Tensor& rois) {
  STD_TORCH_CHECK(features.dim() == 4, op, ": ", features_name, " must be [N, C, H, W] (4 dimensions), got ",
                  features.dim(), " dimensions");
  STD_TORCH_CHECK(is_floating(features.scalar_type()), op, ": ", features_name,
                  " must be float16, bfloat16, float32 or float64, got ",
                  torch::headeronly::toString(features.scalar_type()));
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5, op,
                  ": boxes must be [K, 5] (batch index, x1, y1, x2, y2), got ", rois.dim(), " dimensions",
                  rois.dim() == 2 ? " with a wrong second size" : "");
  STD_TORCH_CHECK(is_floating(rois.scalar_type()), op, ": boxes must be floating point, got ",
                  torch::headeronly::toString(rois.scalar_type()));
  STD_TORCH_CHECK(rois.device() == features.device(), op, ": boxes must be on the same device as ", features_name);
}

// The largest sampling_ratio taken: the cost of a RoI grows with it, and a number far beyond any use would hang.
constexpr int64_t kMaxSamplingRatio = 65536;

inline void check_pooling(const char* op, double spatial_scale, int64_t pooled_height, int64_t pooled_width,
                          int64_t sampling_ratio) {
  STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, op, ": output_size must be positive, got (", pooled_height,
                  ", ", pooled_width, ")");
  STD_TORCH_CHECK(spatial_scale > 0 && spatial_scale - spatial_scale == 0, op,
                  ": spatial_scale must be positive and finite, got ", spatial_scale);
  STD_TORCH_CHECK(sampling_ratio <= kMaxSamplingRatio, op, ": sampling_ratio must be at most ", kMaxSamplingRatio,
                  ", got ", sampling_ratio);
}

// grad [K, C, PH, PW] of the output, for an input [N, C, H, W].
inline void check_grad(const Tensor& grad, const Tensor& rois, int64_t pooled_height, int64_t pooled_width,
                       int64_t batch_size, int64_t channels, int64_t height, int64_t width) {
  STD_TORCH_CHECK(grad.size(0) == rois.size(0) && grad.size(1) == channels && grad.size(2) == pooled_height &&
                      grad.size(3) == pooled_width,
                  "roi_align_backward: grad must be [", rois.size(0), ", ", channels, ", ", pooled_height, ", ",
                  pooled_width, "]");
  STD_TORCH_CHECK(batch_size >= 0 && channels >= 0 && height >= 0 && width >= 0,
                  "roi_align_backward: the input size must not be negative");
}

}  // namespace structops
