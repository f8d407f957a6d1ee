// The CUDA binding of both position-sensitive ops: checks, allocation, launch on the current stream. Nothing here waits
// for the GPU, so the ops can be captured in a CUDA graph.
#pragma once
#include "common/cuda/binding.h"
#include "ps_roi_align/ps_roi_checks.h"
#include "ps_roi_align/ps_roi_cuda.h"

namespace structops {

inline Tensor ps_roi_workspace(const PsRoiParams& p, const Tensor& data) {
  const size_t bytes = cuda::ps_roi_workspace(p, data.scalar_type() == ScalarType::Double);
  return torch::stable::empty({static_cast<int64_t>(bytes)}, ScalarType::Byte, std::nullopt, data.device());
}

inline Tensor ps_roi_forward(const PsRoiOp& op, const Tensor& input, const Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  const PsRoiParams p = ps_roi_params(op, input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.classes, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return torch::stable::zero_(output);
  const Tensor workspace = ps_roi_workspace(p, input);
  const int64_t strides[4] = {input.stride(0), input.stride(1), input.stride(2), input.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "ps_roi_forward", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::ps_roi_forward(p, data<T>(input), strides, boxes.const_data_ptr(),
                                        boxes.scalar_type() == ScalarType::Double, mutable_data<T>(output),
                                        format == MemoryFormat::ChannelsLast, workspace.mutable_data_ptr(),
                                        cuda::current_stream(input)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

inline Tensor ps_roi_backward(const PsRoiOp& op, const Tensor& grad, const Tensor& rois, double spatial_scale,
                              int64_t pooled_height, int64_t pooled_width, int64_t batch_size, int64_t channels,
                              int64_t height, int64_t width, int64_t sampling_ratio) {
  const PsRoiParams p = ps_roi_backward_params(op, grad, rois, spatial_scale, pooled_height, pooled_width, batch_size,
                                               channels, height, width, sampling_ratio);
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  const Tensor workspace = ps_roi_workspace(p, grad);
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "ps_roi_backward", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::ps_roi_backward(p, data<T>(grad), strides, boxes.const_data_ptr(),
                                         boxes.scalar_type() == ScalarType::Double, mutable_data<T>(grad_input),
                                         format == MemoryFormat::ChannelsLast, workspace.mutable_data_ptr(),
                                         cuda::current_stream(grad)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_input;
}

}  // namespace structops
