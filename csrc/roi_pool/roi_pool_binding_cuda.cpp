// roi_pool for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits for the GPU, so both
// ops can be captured in a CUDA graph.
#include <tuple>

#include "common/cuda/binding.h"
#include "common/rois.h"
#include "roi_pool/roi_pool_checks.h"
#include "roi_pool/roi_pool_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

std::tuple<Tensor, Tensor> roi_pool(const Tensor& input, const Tensor& rois, double spatial_scale,
                                    int64_t pooled_height, int64_t pooled_width, bool with_argmax) {
  check_rois("roi_pool", input, "input", rois);
  check_pooling("roi_pool", spatial_scale, pooled_height, pooled_width);
  check_plane("roi_pool", input.size(2), input.size(3));
  const DeviceGuard guard(input.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiPoolParams p{boxes.size(0), input.size(0), input.size(1), input.size(2),
                        input.size(3), pooled_height, pooled_width,  spatial_scale};
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.channels, pooled_height, pooled_width}, format);
  Tensor argmax = empty_argmax(input, p, with_argmax, format);
  if (output.numel() == 0) return {output, argmax};
  const int64_t strides[4] = {input.stride(0), input.stride(1), input.stride(2), input.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "roi_pool", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::roi_pool_forward(p, data<T>(input), strides, boxes.const_data_ptr(),
                                          boxes.scalar_type() == ScalarType::Double, mutable_data<T>(output),
                                          with_argmax ? mutable_data<int32_t>(argmax) : nullptr,
                                          format == MemoryFormat::ChannelsLast, cuda::current_stream(input)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {output, argmax};
}

Tensor roi_pool_backward(const Tensor& grad, const Tensor& rois, const Tensor& argmax, double spatial_scale,
                         int64_t pooled_height, int64_t pooled_width, int64_t batch_size, int64_t channels,
                         int64_t height, int64_t width) {
  check_rois("roi_pool_backward", grad, "grad", rois);
  check_pooling("roi_pool_backward", spatial_scale, pooled_height, pooled_width);
  check_grad("roi_pool_backward", grad, rois, channels, pooled_height, pooled_width, batch_size, channels, height,
             width);
  check_argmax("roi_pool_backward", argmax, grad);
  check_plane("roi_pool_backward", height, width);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiPoolParams p{boxes.size(0), batch_size, channels, height, width, pooled_height, pooled_width, spatial_scale};
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  const Tensor workspace = torch::stable::empty({static_cast<int64_t>(cuda::roi_pool_backward_workspace(p))},
                                                ScalarType::Byte, std::nullopt, grad.device());
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  const int64_t argmax_strides[4] = {argmax.stride(0), argmax.stride(1), argmax.stride(2), argmax.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "roi_pool_backward", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::roi_pool_backward(
        p, data<T>(grad), strides, boxes.const_data_ptr(), boxes.scalar_type() == ScalarType::Double,
        data<int32_t>(argmax), argmax_strides, mutable_data<T>(grad_input), format == MemoryFormat::ChannelsLast,
        workspace.mutable_data_ptr(), cuda::current_stream(grad)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("roi_pool", TORCH_BOX(&roi_pool));
  m.impl("roi_pool_backward", TORCH_BOX(&roi_pool_backward));
}

}  // namespace structops
