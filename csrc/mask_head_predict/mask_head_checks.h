// Argument checks that the CPU and CUDA bindings of mask_head_predict share; structops/ops/mask_head_predict.py has the
// same.
#pragma once
#include <initializer_list>
#include <string>

#include "common/tensor.h"
#include "mask_head_predict/mask_head_predict.h"

namespace structops {

inline void check_mask_head_shape(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                                  const std::string& words) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  for (int64_t d = 0; same && d < t.dim(); ++d) same = t.size(d) == shape.begin()[d];
  STRUCTOPS_CHECK(same, "mask_head_predict: ", name, " must be ", words);
}

inline MaskHeadParams check_mask_head(const Tensor& features, const Tensor& deconv_weight,
                                      const OptionalTensor& deconv_bias, const Tensor& logits_weight,
                                      const OptionalTensor& logits_bias, const Tensor& labels) {
  constexpr const char* op = "mask_head_predict";
  check_floating(op, "features", features);
  STRUCTOPS_CHECK(features.dim() == 4, op, ": features must be [K, C, H, W], got ", features.dim(), " dimensions");
  const auto same_type = [&](const char* name, const Tensor& t) {
    STRUCTOPS_CHECK(t.scalar_type() == features.scalar_type(), op, ": ", name, " must have the type of features");
    STRUCTOPS_CHECK(t.device() == features.device(), op, ": ", name, " must be on the same device as features");
  };
  same_type("deconv_weight", deconv_weight);
  if (deconv_bias) same_type("deconv_bias", *deconv_bias);
  same_type("logits_weight", logits_weight);
  if (logits_bias) same_type("logits_bias", *logits_bias);
  const int64_t channels = features.size(1), hidden = deconv_weight.dim() == 4 ? deconv_weight.size(1) : 0;
  const int64_t classes = logits_weight.dim() > 0 ? logits_weight.size(0) : 0;
  const auto number = [](int64_t n) { return std::to_string(n); };
  check_mask_head_shape("deconv_weight", deconv_weight, {channels, hidden, 2, 2},
                        "[" + number(channels) + ", D, 2, 2]");
  check_mask_head_shape("logits_weight", logits_weight, {classes, hidden},
                        "[classes, " + number(hidden) + ", 1, 1] or [classes, " + number(hidden) + "]");
  if (deconv_bias) check_mask_head_shape("deconv_bias", *deconv_bias, {hidden}, "[" + number(hidden) + "]");
  if (logits_bias) check_mask_head_shape("logits_bias", *logits_bias, {classes}, "[" + number(classes) + "]");
  STRUCTOPS_CHECK(is_integer(labels.scalar_type()), op, ": labels must be an integer tensor, got ",
                  torch::headeronly::toString(labels.scalar_type()));
  STRUCTOPS_CHECK(labels.device() == features.device(), op, ": labels must be on the same device as features");
  check_mask_head_shape("labels", labels, {features.size(0)}, "[" + number(features.size(0)) + "], one for each RoI");
  return {features.size(0), channels, hidden, classes, features.size(2), features.size(3)};
}

}  // namespace structops
