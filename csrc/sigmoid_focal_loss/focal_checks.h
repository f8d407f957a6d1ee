// Argument checks that the CPU and CUDA bindings of the sigmoid focal loss share, and what they make of the arguments.
#pragma once
#include <cmath>

#include "common/tensor.h"
#include "sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace structops {

inline void check_focal(const char* op, const Tensor& inputs, const Tensor& targets, double alpha, double gamma,
                        int64_t reduction) {
  check_floating(op, "inputs", inputs);
  if (is_floating(targets.scalar_type())) {
    STRUCTOPS_CHECK(targets.scalar_type() == inputs.scalar_type(), op, ": targets must have the type of inputs");
    STRUCTOPS_CHECK(inputs.dim() == 1 && targets.dim() == 1 && targets.size(0) == inputs.size(0), op,
                    ": targets must have the shape of inputs, both flat");
  } else {
    STRUCTOPS_CHECK(is_integer(targets.scalar_type()), op, ": targets must be floating point or integer classes, got ",
                    torch::headeronly::toString(targets.scalar_type()));
    STRUCTOPS_CHECK(inputs.dim() == 2 && targets.dim() == 1 && targets.size(0) == inputs.size(0), op,
                    ": targets must be [R], a class for each row of inputs [R, C]");
  }
  STRUCTOPS_CHECK(targets.device() == inputs.device(), op, ": targets must be on the same device as inputs");
  STRUCTOPS_CHECK(alpha <= 1, op, ": alpha must be at most 1 (negative: no weighting), got ", alpha);  // NaN fails too
  STRUCTOPS_CHECK(gamma >= 0 && std::isfinite(gamma), op, ": gamma must be 0 or more and finite, got ", gamma);
  STRUCTOPS_CHECK(reduction >= 0 && reduction <= 2, op, ": reduction must be 0 (none), 1 (mean) or 2 (sum), got ",
                  reduction);
}

inline void check_focal_grad(const char* op, const Tensor& grad, const Tensor& inputs, int64_t reduction) {
  STRUCTOPS_CHECK(grad.scalar_type() == inputs.scalar_type(), op, ": grad must have the type of inputs");
  STRUCTOPS_CHECK(grad.device() == inputs.device(), op, ": grad must be on the same device as inputs");
  bool same = grad.dim() == (reduction == 0 ? inputs.dim() : 0);
  for (int64_t d = 0; same && d < grad.dim(); ++d) same = grad.size(d) == inputs.size(d);
  STRUCTOPS_CHECK(same, op, ": grad must have the shape of the loss");
}

// What a sum is divided by.
inline double focal_divisor(const Tensor& inputs, int64_t reduction) {
  return reduction == static_cast<int64_t>(Reduction::mean) ? static_cast<double>(inputs.numel()) : 1.0;
}

// Inputs and targets, dense, as the kernels take them: T is the kernel's name for the storage type.
struct FocalTensors {
  Tensor inputs, targets;

  FocalTensors(const Tensor& inputs_, const Tensor& targets_)
      : inputs(torch::stable::contiguous(inputs_)),
        targets(torch::stable::contiguous(
            is_floating(targets_.scalar_type()) ? targets_ : torch::stable::to(targets_, ScalarType::Long))) {}

  template <class T>
  FocalInput<T> as() const {
    const bool classes = targets.scalar_type() == ScalarType::Long;
    const void* data = targets.const_data_ptr();
    return {static_cast<const T*>(inputs.const_data_ptr()), classes ? nullptr : static_cast<const T*>(data),
            classes ? static_cast<const int64_t*>(data) : nullptr, inputs.numel(),
            inputs.dim() == 2 ? inputs.size(1) : 1};
  }
};

}  // namespace structops
