// mask_head_predict for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include "conv_transpose2d/conv_plan.h"
#include "mask_head_predict/mask_head_checks.h"

namespace structops {
namespace {

Tensor mask_head_predict(const Tensor& features, const Tensor& deconv_weight, const OptionalTensor& deconv_bias,
                         const Tensor& logits_weight, const OptionalTensor& logits_bias, const Tensor& labels) {
  const MaskHeadParams p = check_mask_head(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels);
  const Tensor indices = dense(labels, ScalarType::Long);
  const int64_t* own = data<int64_t>(indices);
  for (int64_t i = 0; i < p.rois; ++i)
    STRUCTOPS_CHECK(own[i] >= 0 && own[i] < p.classes, "mask_head_predict: labels[", i, "] is ", own[i],
                    ", but must be in [0, ", p.classes, ")");
  Tensor out = empty({p.rois, 2 * p.height, 2 * p.width}, features.scalar_type(), features);
  if (out.numel() == 0) return out;
  const MemoryFormat format = memory_format_of(features);
  const Tensor map = torch::stable::contiguous(features, format);
  const ScalarType wide = wide_type(features);
  const OptionalTensor bias = dense(deconv_bias, wide), class_bias = dense(logits_bias, wide);
  const Tensor class_weight = dense(logits_weight, wide);
  const cpu::WeightStrides strides{deconv_weight.stride(0), deconv_weight.stride(1), deconv_weight.stride(2),
                                   deconv_weight.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(features.scalar_type(), "mask_head_predict", [&] {
    using A = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    cpu::mask_head_predict(p, data<scalar_t>(map), format == MemoryFormat::Contiguous, data<scalar_t>(deconv_weight),
                           strides, data<A>(bias), data<A>(class_weight), data<A>(class_bias), own,
                           mutable_data<scalar_t>(out), parallel_for);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "mask_head_predict(Tensor features, Tensor deconv_weight, Tensor? deconv_bias, Tensor logits_weight, "
      "Tensor? logits_bias, Tensor labels) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("mask_head_predict", TORCH_BOX(&mask_head_predict)); }

}  // namespace structops
