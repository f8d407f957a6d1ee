// The CPU binding of both position-sensitive ops: checks, allocation, then the kernel.
#pragma once
#include "common/cpu/memory.h"
#include "ps_roi_align/ps_roi_checks.h"

namespace structops {

inline Tensor ps_roi_forward(const PsRoiOp& op, const Tensor& input, const Tensor& rois, double spatial_scale,
                             int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio) {
  const PsRoiParams p = ps_roi_params(op, input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices(op.forward, boxes, p.batch);
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.classes, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return torch::stable::zero_(output);
  cpu::advise_huge_pages(output.mutable_data_ptr(), output.numel() * output.element_size());
  const int64_t strides[4] = {input.stride(0), input.stride(1), input.stride(2), input.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "ps_roi_forward", [&] {
    cpu::ps_roi_forward(p, data<scalar_t>(input), strides, data<double>(boxes), mutable_data<scalar_t>(output),
                        format == MemoryFormat::ChannelsLast, parallel_for);
  });
  return output;
}

inline Tensor ps_roi_backward(const PsRoiOp& op, const Tensor& grad, const Tensor& rois, double spatial_scale,
                              int64_t pooled_height, int64_t pooled_width, int64_t batch_size, int64_t channels,
                              int64_t height, int64_t width, int64_t sampling_ratio) {
  const PsRoiParams p = ps_roi_backward_params(op, grad, rois, spatial_scale, pooled_height, pooled_width, batch_size,
                                               channels, height, width, sampling_ratio);
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices(op.backward, boxes, batch_size);
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  cpu::advise_huge_pages(grad_input.mutable_data_ptr(), grad_input.numel() * grad_input.element_size());
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "ps_roi_backward", [&] {
    cpu::ps_roi_backward(p, data<scalar_t>(grad), strides, data<double>(boxes), mutable_data<scalar_t>(grad_input),
                         format == MemoryFormat::ChannelsLast, parallel_for);
  });
  return grad_input;
}

}  // namespace structops
