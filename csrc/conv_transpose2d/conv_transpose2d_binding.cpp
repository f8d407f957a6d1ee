// conv_transpose2d for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include "conv_transpose2d/conv_transpose2d_checks.h"

namespace structops {

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

}  // namespace structops
