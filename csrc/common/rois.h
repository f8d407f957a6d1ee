// Regions of interest as the bindings take them: checks that every RoI op shares, and conversions.
//
// Each check names the op and the argument, says what was given and what is accepted. The same in Python is
// structops/ops/_boxes.py; the error cases of each op's database hold both to the same messages.
#pragma once
#include "common/tensor.h"

namespace structops {

// features [N, C, H, W] and rois [K, columns], floating, on one device. meaning: of the columns.
inline void check_rois(const char* op, const Tensor& features, const char* features_name, const Tensor& rois,
                       int64_t columns = 5, const char* meaning = "(batch index, x1, y1, x2, y2)") {
  STRUCTOPS_CHECK(features.dim() == 4, op, ": ", features_name, " must be [N, C, H, W] (4 dimensions), got ",
                  features.dim(), " dimensions");
  check_floating(op, features_name, features);
  STRUCTOPS_CHECK(rois.dim() == 2 && rois.size(1) == columns, op, ": boxes must be [K, ", columns, "] ", meaning,
                  ", got ", shape_text(rois));
  STRUCTOPS_CHECK(is_floating(rois.scalar_type()), op, ": boxes must be floating point, got ",
                  torch::headeronly::toString(rois.scalar_type()));
  STRUCTOPS_CHECK(rois.device() == features.device(), op, ": boxes must be on the same device as ", features_name);
}

// The longest side of a crop taken: far beyond any use, and small enough that no product of two overflows.
constexpr int64_t kMaxPooled = 32768;

inline void check_pooling(const char* op, double spatial_scale, int64_t pooled_height, int64_t pooled_width) {
  STRUCTOPS_CHECK(pooled_height > 0 && pooled_width > 0, op, ": output_size must be positive, got (", pooled_height,
                  ", ", pooled_width, ")");
  STRUCTOPS_CHECK(pooled_height <= kMaxPooled && pooled_width <= kMaxPooled, op, ": output_size must be at most ",
                  kMaxPooled, ", got (", pooled_height, ", ", pooled_width, ")");
  STRUCTOPS_CHECK(spatial_scale > 0 && spatial_scale - spatial_scale == 0, op,
                  ": spatial_scale must be positive and finite, got ", spatial_scale);
}

// The largest sampling_ratio taken: the cost of a RoI grows with it, and a number far beyond any use would hang.
constexpr int64_t kMaxSamplingRatio = 65536;

inline void check_sampling(const char* op, int64_t sampling_ratio, int64_t most = kMaxSamplingRatio) {
  STRUCTOPS_CHECK(sampling_ratio <= most, op, ": sampling_ratio must be at most ", most, ", got ", sampling_ratio);
}

// grad [K, grad_channels, PH, PW] of an output, for an input [N, C, H, W].
inline void check_grad(const char* op, const Tensor& grad, const Tensor& rois, int64_t grad_channels,
                       int64_t pooled_height, int64_t pooled_width, int64_t batch_size, int64_t channels,
                       int64_t height, int64_t width) {
  STRUCTOPS_CHECK(grad.size(0) == rois.size(0) && grad.size(1) == grad_channels && grad.size(2) == pooled_height &&
                      grad.size(3) == pooled_width,
                  op, ": grad must be [", rois.size(0), ", ", grad_channels, ", ", pooled_height, ", ", pooled_width,
                  "]");
  STRUCTOPS_CHECK(batch_size >= 0 && channels >= 0 && height >= 0 && width >= 0, op,
                  ": the input size must not be negative");
}

// CPU: rois as contiguous doubles. float32 boxes convert exactly, and the kernels need one type only.
inline Tensor rois_as_double(const Tensor& rois) { return dense(rois, ScalarType::Double); }

// CPU: rois [K, columns] of doubles, as above, have an image index in [0, batch) first.
inline void check_batch_indices(const char* op, const Tensor& rois, int64_t batch) {
  const auto* row = data<double>(rois);
  const int64_t columns = rois.size(1);
  for (int64_t k = 0; k < rois.size(0); ++k)
    STRUCTOPS_CHECK(row[k * columns] >= 0 && row[k * columns] < static_cast<double>(batch), op, ": boxes[", k,
                    ", 0] is batch index ", row[k * columns], ", but must be in [0, ", batch, ")");
}

// CUDA: rois dense, float or double. Halves convert exactly; a double box keeps its digits.
inline Tensor rois_as_float(const Tensor& rois) { return dense(rois, wide_type(rois)); }

}  // namespace structops
