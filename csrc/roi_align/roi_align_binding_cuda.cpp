// roi_align for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits
// for the GPU, so both ops can be captured in a CUDA graph.
#include "common/cuda/binding.h"
#include "common/rois.h"
#include "roi_align/roi_align_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                 int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  check_rois("roi_align", input, "input", rois);
  check_pooling("roi_align", spatial_scale, pooled_height, pooled_width);
  check_sampling("roi_align", sampling_ratio);
  const DeviceGuard guard(input.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiAlignParams p{boxes.size(0), input.size(0), input.size(1), input.size(2),  input.size(3),
                         pooled_height, pooled_width,  spatial_scale, sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.channels, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return torch::stable::zero_(output);
  const int64_t strides[4] = {input.stride(0), input.stride(1), input.stride(2), input.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "roi_align", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::roi_align_forward(p, data<T>(input), strides, boxes.const_data_ptr(),
                                           boxes.scalar_type() == ScalarType::Double, mutable_data<T>(output),
                                           format == MemoryFormat::ChannelsLast, cuda::current_stream(input)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

Tensor roi_align_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                          int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width,
                          int64_t sampling_ratio, bool aligned) {
  check_rois("roi_align_backward", grad, "grad", rois);
  check_pooling("roi_align_backward", spatial_scale, pooled_height, pooled_width);
  check_sampling("roi_align_backward", sampling_ratio);
  check_grad("roi_align_backward", grad, rois, channels, pooled_height, pooled_width, batch_size, channels, height,
             width);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiAlignParams p{boxes.size(0), batch_size,   channels,      height,         width,
                         pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  const Tensor workspace = torch::stable::empty({static_cast<int64_t>(cuda::roi_align_backward_workspace(p))},
                                                ScalarType::Byte, std::nullopt, grad.device());
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "roi_align_backward", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::roi_align_backward(p, data<T>(grad), strides, boxes.const_data_ptr(),
                                            boxes.scalar_type() == ScalarType::Double, mutable_data<T>(grad_input),
                                            format == MemoryFormat::ChannelsLast, workspace.mutable_data_ptr(),
                                            cuda::current_stream(grad)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}

}  // namespace structops
