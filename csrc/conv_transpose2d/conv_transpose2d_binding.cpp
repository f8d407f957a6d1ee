// conv_transpose2d for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include "common/cpu/memory.h"
#include "conv_transpose2d/conv_transpose2d_checks.h"
#include "conv_transpose2d/conv_transpose2d_cpu.h"

namespace structops {
namespace {

using Steps = std::vector<int64_t>;

cpu::WeightStrides strides_of(const Tensor& weight) {
  return {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)};
}

// scale * (sum + bias) + shift as scale * sum + offset. Dense, of the type of arithmetic.
struct Affine {
  OptionalTensor scale, offset;

  Affine(const OptionalTensor& bias, const OptionalTensor& scale_, const OptionalTensor& shift, ScalarType type)
      : scale(dense(scale_, type)), offset(dense(bias, type)) {
    const OptionalTensor added = dense(shift, type);
    if (type == ScalarType::Double)
      fold<double>(added);
    else
      fold<float>(added);
  }

 private:
  template <class A>
  void fold(const OptionalTensor& shift) {
    if (!offset || (!scale && !shift)) {
      if (!offset) offset = shift;
      return;
    }
    const int64_t count = offset->size(0);
    Tensor folded = empty({count}, offset->scalar_type(), *offset);
    A* to = mutable_data<A>(folded);
    const A *bias = data<A>(offset), *factor = data<A>(scale), *added = data<A>(shift);
    for (int64_t i = 0; i < count; ++i) to[i] = bias[i] * (factor ? factor[i] : A(1)) + (added ? added[i] : A(0));
    offset = folded;
  }
};

Tensor conv_transpose2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const OptionalTensor& scale, const OptionalTensor& shift, const OptionalTensor& residual,
                        const Steps& stride, const Steps& padding, const Steps& output_padding, int64_t groups,
                        const Steps& dilation, int64_t activation, double negative_slope, bool residual_last) {
  const ConvTransposeParams p = check_conv_transpose2d(input, weight, bias, scale, shift, residual, stride, padding,
                                                       output_padding, groups, dilation, activation, negative_slope);
  const MemoryFormat format = memory_format_of(input);
  Tensor out = empty_with_format(input, {p.batch, p.out_channels, p.out_height, p.out_width}, format);
  if (out.numel() == 0) return out;
  cpu::advise_huge_pages(out.mutable_data_ptr(), out.numel() * out.element_size());
  const Tensor map = torch::stable::contiguous(input, format);
  const OptionalTensor added = residual ? torch::stable::contiguous(*residual, format) : residual;
  const Affine affine(bias, scale, shift, wide_type(input));
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "conv_transpose2d", [&] {
    using A = cpu::Arithmetic<scalar_t>;
    const cpu::Epilogue<scalar_t, A> epilogue{data<A>(affine.scale),          data<A>(affine.offset),
                                              data<scalar_t>(added),          static_cast<Activation>(activation),
                                              static_cast<A>(negative_slope), residual_last};
    cpu::conv_transpose2d(p, data<scalar_t>(map), format == MemoryFormat::Contiguous, data<scalar_t>(weight),
                          strides_of(weight), epilogue, mutable_data<scalar_t>(out), parallel_for);
  });
  return out;
}

Tensor conv_transpose2d_grad_input(const Tensor& grad, const Tensor& weight, int64_t height, int64_t width,
                                   const Steps& stride, const Steps& padding, int64_t groups, const Steps& dilation) {
  const ConvTransposeParams p =
      check_conv_transpose2d_grad_input(grad, weight, height, width, stride, padding, groups, dilation);
  const MemoryFormat format = memory_format_of(grad);
  Tensor grad_input = empty_with_format(grad, {p.batch, p.in_channels, height, width}, format);
  if (grad_input.numel() == 0) return grad_input;
  cpu::advise_huge_pages(grad_input.mutable_data_ptr(), grad_input.numel() * grad_input.element_size());
  const Tensor map = torch::stable::contiguous(grad, format);
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "conv_transpose2d_grad_input", [&] {
    cpu::conv_transpose2d_grad_input(p, data<scalar_t>(map), format == MemoryFormat::Contiguous, data<scalar_t>(weight),
                                     strides_of(weight), mutable_data<scalar_t>(grad_input), parallel_for);
  });
  return grad_input;
}

Tensor conv_transpose2d_grad_weight(const Tensor& input, const Tensor& grad, int64_t kernel_height,
                                    int64_t kernel_width, const Steps& stride, const Steps& padding, int64_t groups,
                                    const Steps& dilation) {
  const ConvTransposeParams p =
      check_conv_transpose2d_grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation);
  const MemoryFormat format = memory_format_of(input);
  Tensor grad_weight =
      empty_with_format(input, {p.in_channels, p.out_channels / groups, kernel_height, kernel_width}, format);
  if (grad_weight.numel() == 0) return grad_weight;
  const Tensor x = torch::stable::contiguous(input, format), g = torch::stable::contiguous(grad, format);
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "conv_transpose2d_grad_weight", [&] {
    cpu::conv_transpose2d_grad_weight(p, data<scalar_t>(x), data<scalar_t>(g), format == MemoryFormat::Contiguous,
                                      mutable_data<scalar_t>(grad_weight), strides_of(grad_weight), parallel_for);
  });
  return grad_weight;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias, Tensor? scale, Tensor? shift, Tensor? residual, "
      "SymInt[] stride, SymInt[] padding, SymInt[] output_padding, SymInt groups, SymInt[] dilation, int activation, "
      "float negative_slope, bool residual_after_activation) -> Tensor");
  m.def(
      "conv_transpose2d_grad_input(Tensor grad, Tensor weight, SymInt height, SymInt width, SymInt[] stride, "
      "SymInt[] padding, SymInt groups, SymInt[] dilation) -> Tensor");
  m.def(
      "conv_transpose2d_grad_weight(Tensor input, Tensor grad, SymInt kernel_height, SymInt kernel_width, "
      "SymInt[] stride, SymInt[] padding, SymInt groups, SymInt[] dilation) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("conv_transpose2d", TORCH_BOX(&conv_transpose2d));
  m.impl("conv_transpose2d_grad_input", TORCH_BOX(&conv_transpose2d_grad_input));
  m.impl("conv_transpose2d_grad_weight", TORCH_BOX(&conv_transpose2d_grad_weight));
}

}  // namespace structops
