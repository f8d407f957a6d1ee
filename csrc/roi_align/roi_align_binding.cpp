// roi_align for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include "common/cpu/memory.h"
#include "common/rois.h"
#include "roi_align/roi_align.h"

namespace structops {
namespace {

Tensor roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                 int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  check_rois("roi_align", input, "input", rois);
  check_pooling("roi_align", spatial_scale, pooled_height, pooled_width);
  check_sampling("roi_align", sampling_ratio);
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices("roi_align", boxes, input.size(0));
  const RoiAlignParams p{boxes.size(0), input.size(0), input.size(1), input.size(2),  input.size(3),
                         pooled_height, pooled_width,  spatial_scale, sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(input);
  Tensor output = empty_with_format(input, {p.rois, p.channels, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return torch::stable::zero_(output);
  cpu::advise_huge_pages(output.mutable_data_ptr(), output.numel() * output.element_size());
  const cpu::RoiAlignMap map{
      p, input.const_data_ptr(), {input.stride(0), input.stride(1), input.stride(2), input.stride(3)}};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "roi_align", [&] {
    cpu::roi_align_forward(&map, data<double>(boxes), nullptr, mutable_data<scalar_t>(output),
                           format == MemoryFormat::ChannelsLast, parallel_for);
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
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices("roi_align_backward", boxes, batch_size);
  const RoiAlignParams p{boxes.size(0), batch_size,   channels,      height,         width,
                         pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {batch_size, channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return torch::stable::zero_(grad_input);
  cpu::advise_huge_pages(grad_input.mutable_data_ptr(), grad_input.numel() * grad_input.element_size());
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "roi_align_backward", [&] {
    cpu::roi_align_backward(p, data<scalar_t>(grad), strides, data<double>(boxes), mutable_data<scalar_t>(grad_input),
                            format == MemoryFormat::ChannelsLast, parallel_for);
  });
  return grad_input;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
      "int sampling_ratio, bool aligned) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
      "SymInt batch_size, SymInt channels, SymInt height, SymInt width, int sampling_ratio, bool aligned) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}

}  // namespace structops
