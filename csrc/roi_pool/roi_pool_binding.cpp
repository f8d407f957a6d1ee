// roi_pool for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include <tuple>

#include "common/cpu/memory.h"
#include "common/rois.h"
#include "roi_pool/roi_pool.h"
#include "roi_pool/roi_pool_checks.h"

namespace structops {
namespace {

std::tuple<Tensor, Tensor> roi_pool(const Tensor& input, const Tensor& rois, double spatial_scale,
                                    int64_t pooled_height, int64_t pooled_width, bool with_argmax) {
  check_rois("roi_pool", input, "input", rois);
  check_pooling("roi_pool", spatial_scale, pooled_height, pooled_width);
  check_plane("roi_pool", input.size(2), input.size(3));
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices("roi_pool", boxes, input.size(0));
  const RoiPoolParams p{boxes.size(0), input.size(0), input.size(1), input.size(2),
                        input.size(3), pooled_height, pooled_width,  spatial_scale};
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.channels, pooled_height, pooled_width}, format);
  Tensor argmax = empty_argmax(input, p, with_argmax, format);
  if (output.numel() == 0) return {output, argmax};
  // The kernel reads vectors of channels, or of columns.
  const bool vectors = format == MemoryFormat::ChannelsLast || input.stride(3) == 1;
  const Tensor features = vectors ? input : torch::stable::contiguous(input);
  const int64_t strides[4] = {features.stride(0), features.stride(1), features.stride(2), features.stride(3)};
  cpu::advise_huge_pages(output.mutable_data_ptr(), output.numel() * output.element_size());
  cpu::advise_huge_pages(argmax.mutable_data_ptr(), argmax.numel() * argmax.element_size());
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "roi_pool", [&] {
    cpu::roi_pool_forward(p, data<scalar_t>(features), strides, data<double>(boxes), mutable_data<scalar_t>(output),
                          with_argmax ? mutable_data<int32_t>(argmax) : nullptr, format == MemoryFormat::ChannelsLast,
                          parallel_for);
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
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices("roi_pool_backward", boxes, batch_size);
  const RoiPoolParams p{boxes.size(0), batch_size, channels, height, width, pooled_height, pooled_width, spatial_scale};
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  cpu::advise_huge_pages(grad_input.mutable_data_ptr(), grad_input.numel() * grad_input.element_size());
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  const int64_t argmax_strides[4] = {argmax.stride(0), argmax.stride(1), argmax.stride(2), argmax.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "roi_pool_backward", [&] {
    cpu::roi_pool_backward(p, data<scalar_t>(grad), strides, data<double>(boxes), data<int32_t>(argmax), argmax_strides,
                           mutable_data<scalar_t>(grad_input), format == MemoryFormat::ChannelsLast, parallel_for);
  });
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
      "bool with_argmax) -> (Tensor, Tensor)");
  m.def(
      "roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, SymInt pooled_height, "
      "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&roi_pool));
  m.impl("roi_pool_backward", TORCH_BOX(&roi_pool_backward));
}

}  // namespace structops
