// sigmoid_focal_loss for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits for the
// GPU, so both ops can be captured in a CUDA graph.
#include "common/cuda/binding.h"
#include "sigmoid_focal_loss/focal_checks.h"
#include "sigmoid_focal_loss/sigmoid_focal_loss_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor sigmoid_focal_loss(const Tensor& inputs, const Tensor& targets, double alpha, double gamma, int64_t reduction) {
  check_focal("sigmoid_focal_loss", inputs, targets, alpha, gamma, reduction);
  const DeviceGuard guard(inputs.get_device_index());
  const FocalLaw law = focal_law(alpha, gamma);
  const FocalTensors tensors(inputs, targets);
  const bool reduced = reduction != static_cast<int64_t>(Reduction::none);
  Tensor out = reduced ? empty({}, inputs.scalar_type(), inputs) : empty(inputs.sizes(), inputs.scalar_type(), inputs);
  const int64_t partial_sums = reduced ? cuda::sigmoid_focal_loss_partials(inputs.numel()) : 0;
  const Tensor partials = empty({partial_sums}, ScalarType::Double, inputs);
  STRUCTOPS_DISPATCH_FLOATING(inputs.scalar_type(), "sigmoid_focal_loss", [&] {
    using T = cuda::DeviceType<scalar_t>;
    auto* loss = mutable_data<T>(out);
    const auto in = tensors.as<T>();
    STD_CUDA_CHECK(reduced ? cuda::sigmoid_focal_loss_sum(law, in, focal_divisor(inputs, reduction),
                                                          mutable_data<double>(partials), loss,
                                                          cuda::current_stream(inputs))
                           : cuda::sigmoid_focal_loss(law, in, loss, cuda::current_stream(inputs)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& inputs, const Tensor& targets, double alpha,
                                   double gamma, int64_t reduction) {
  constexpr const char* op = "sigmoid_focal_loss_backward";
  check_focal(op, inputs, targets, alpha, gamma, reduction);
  check_focal_grad(op, grad, inputs, reduction);
  const DeviceGuard guard(inputs.get_device_index());
  const FocalTensors tensors(inputs, targets);
  const Tensor incoming = torch::stable::contiguous(grad);
  Tensor grad_inputs = empty(inputs.sizes(), inputs.scalar_type(), inputs);
  STRUCTOPS_DISPATCH_FLOATING(inputs.scalar_type(), "sigmoid_focal_loss_backward", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::sigmoid_focal_loss_backward(
        focal_law(alpha, gamma), tensors.as<T>(), data<T>(incoming), reduction != static_cast<int64_t>(Reduction::none),
        focal_divisor(inputs, reduction), mutable_data<T>(grad_inputs), cuda::current_stream(inputs)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_inputs;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward));
}

}  // namespace structops
