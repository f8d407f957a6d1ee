// roi_align_rotated for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits
// for the GPU, so both ops can be captured in a CUDA graph.
#include "common/cuda/binding.h"
#include "common/rois.h"
#include "roi_align_rotated/roi_align_rotated_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor roi_align_rotated(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                         int64_t pooled_width, int64_t sampling_ratio, bool aligned, bool clockwise) {
  check_rois("roi_align_rotated", input, "input", rois, 6, kRotatedColumns);
  check_pooling("roi_align_rotated", spatial_scale, pooled_height, pooled_width);
  check_sampling("roi_align_rotated", sampling_ratio, kMaxRotatedSamplingRatio);
  const DeviceGuard guard(input.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiAlignParams p{boxes.size(0), input.size(0), input.size(1), input.size(2),  input.size(3),
                         pooled_height, pooled_width,  spatial_scale, sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.channels, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return torch::stable::zero_(output);
  const Tensor workspace = torch::stable::empty({static_cast<int64_t>(cuda::roi_align_rotated_workspace(p))},
                                                ScalarType::Byte, std::nullopt, input.device());
  const int64_t strides[4] = {input.stride(0), input.stride(1), input.stride(2), input.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "roi_align_rotated", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::roi_align_rotated_forward(p, clockwise, data<T>(input), strides, boxes.const_data_ptr(),
                                                   boxes.scalar_type() == ScalarType::Double, mutable_data<T>(output),
                                                   format == MemoryFormat::ChannelsLast, workspace.mutable_data_ptr(),
                                                   cuda::current_stream(input)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

Tensor roi_align_rotated_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                                  int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height,
                                  int64_t width, int64_t sampling_ratio, bool aligned, bool clockwise) {
  check_rois("roi_align_rotated_backward", grad, "grad", rois, 6, kRotatedColumns);
  check_pooling("roi_align_rotated_backward", spatial_scale, pooled_height, pooled_width);
  check_sampling("roi_align_rotated_backward", sampling_ratio, kMaxRotatedSamplingRatio);
  check_grad("roi_align_rotated_backward", grad, rois, channels, pooled_height, pooled_width, batch_size, channels,
             height, width);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiAlignParams p{boxes.size(0), batch_size,   channels,      height,         width,
                         pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  const Tensor workspace = torch::stable::empty({static_cast<int64_t>(cuda::roi_align_rotated_workspace(p))},
                                                ScalarType::Byte, std::nullopt, grad.device());
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "roi_align_rotated_backward", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::roi_align_rotated_backward(p, clockwise, data<T>(grad), strides, boxes.const_data_ptr(),
                                                    boxes.scalar_type() == ScalarType::Double,
                                                    mutable_data<T>(grad_input), format == MemoryFormat::ChannelsLast,
                                                    workspace.mutable_data_ptr(), cuda::current_stream(grad)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("roi_align_rotated", TORCH_BOX(&roi_align_rotated));
  m.impl("roi_align_rotated_backward", TORCH_BOX(&roi_align_rotated_backward));
}

}  // namespace structops
