// sigmoid_focal_loss for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include "common/cpu/memory.h"
#include "sigmoid_focal_loss/focal_checks.h"

namespace structops {
namespace {

Tensor empty_pages(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef size) {
  Tensor out = empty(size, like.scalar_type(), like);
  cpu::advise_huge_pages(out.mutable_data_ptr(), out.numel() * out.element_size());
  return out;
}

Tensor sigmoid_focal_loss(const Tensor& inputs, const Tensor& targets, double alpha, double gamma, int64_t reduction) {
  check_focal("sigmoid_focal_loss", inputs, targets, alpha, gamma, reduction);
  const FocalLaw law = focal_law(alpha, gamma);
  const FocalTensors tensors(inputs, targets);
  const bool reduced = reduction != static_cast<int64_t>(Reduction::none);
  Tensor out = reduced ? empty_pages(inputs, {}) : empty_pages(inputs, inputs.sizes());
  STRUCTOPS_DISPATCH_FLOATING(inputs.scalar_type(), "sigmoid_focal_loss", [&] {
    auto* loss = mutable_data<scalar_t>(out);
    const auto in = tensors.as<scalar_t>();
    if (reduced) {
      const double sum = cpu::sigmoid_focal_loss_sum(law, in, parallel_for) / focal_divisor(inputs, reduction);
      *loss = static_cast<scalar_t>(static_cast<std::conditional_t<sizeof(scalar_t) == 8, double, float>>(sum));
    } else {
      cpu::sigmoid_focal_loss(law, in, loss, parallel_for);
    }
  });
  return out;
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& inputs, const Tensor& targets, double alpha,
                                   double gamma, int64_t reduction) {
  constexpr const char* op = "sigmoid_focal_loss_backward";
  check_focal(op, inputs, targets, alpha, gamma, reduction);
  check_focal_grad(op, grad, inputs, reduction);
  const FocalLaw law = focal_law(alpha, gamma);
  const FocalTensors tensors(inputs, targets);
  Tensor grad_inputs = empty_pages(inputs, inputs.sizes());
  const Tensor incoming = torch::stable::contiguous(grad);
  STRUCTOPS_DISPATCH_FLOATING(inputs.scalar_type(), "sigmoid_focal_loss_backward", [&] {
    const auto* values = data<scalar_t>(incoming);
    const bool reduced = reduction != static_cast<int64_t>(Reduction::none);
    const double factor = reduced ? static_cast<double>(*values) / focal_divisor(inputs, reduction) : 1.0;
    cpu::sigmoid_focal_loss_backward(law, tensors.as<scalar_t>(), reduced ? nullptr : values, factor,
                                     mutable_data<scalar_t>(grad_inputs), parallel_for);
  });
  return grad_inputs;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("sigmoid_focal_loss(Tensor inputs, Tensor targets, float alpha, float gamma, int reduction) -> Tensor");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor inputs, Tensor targets, float alpha, float gamma, "
      "int reduction) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward));
}

}  // namespace structops
