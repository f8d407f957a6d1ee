// mask_head_predict for torch on CUDA: checks, allocation, launches on the current stream. Nothing here waits for the
// GPU, so a label out of range is found by the kernel, which makes that RoI NaN.
#include <type_traits>

#include "common/cuda/binding.h"
#include "conv_transpose2d/conv_packing.h"
#include "mask_head_predict/mask_head_checks.h"
#include "mask_head_predict/mask_head_predict_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor mask_head_predict(const Tensor& features, const Tensor& deconv_weight, const OptionalTensor& deconv_bias,
                         const Tensor& logits_weight, const OptionalTensor& logits_bias, const Tensor& labels) {
  const MaskHeadParams p = check_mask_head(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels);
  const DeviceGuard guard(features.get_device_index());
  Tensor out = empty({p.rois, 2 * p.height, 2 * p.width}, features.scalar_type(), features);
  if (out.numel() == 0) return out;
  const ScalarType wide = wide_type(features);
  const OptionalTensor bias = dense(deconv_bias, wide), class_bias = dense(logits_bias, wide);
  const Tensor class_weight = dense(logits_weight, wide), indices = dense(labels, ScalarType::Long);
  const cuda::ConvSteps steps{2, 2, 0, 1, 1, 1};
  const cuda::ConvShape shape{p.rois, 1, p.channels, p.hidden, steps, steps, true};
  STRUCTOPS_DISPATCH_FLOATING(features.scalar_type(), "mask_head_predict", [&] {
    using T = cuda::DeviceType<scalar_t>;
    using A = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const cudaStream_t stream = cuda::current_stream(features);
    const Tensor packed = packed_weight<T>(shape, deconv_weight, stream);
    const WideMap<T> from(features, 1, stream);
    const cuda::MaskLogits<A> logits{data<A>(bias), data<A>(class_weight), data<A>(class_bias), data<int64_t>(indices),
                                     p.classes};
    const cuda::MaskHeadShape sizes{p.rois, p.hidden, cuda::padded_depth<T>(p.channels)};
    STD_CUDA_CHECK(
        cuda::mask_head_predict(sizes, from.map, from.data, data<T>(packed), logits, mutable_data<T>(out), stream));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("mask_head_predict", TORCH_BOX(&mask_head_predict)); }

}  // namespace structops
