// Transposed convolution on the CPU: the kernel of every instruction set, and the choice between them.
#include "conv_transpose2d/conv_transpose2d_cpu.h"

#include "conv_transpose2d/conv_engine_cpu.h"

#define STRUCTOPS_ISA_FILE "conv_transpose2d/conv_transpose2d_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class S>
void conv_transpose2d(const ConvTransposeParams& p, const S* input, bool planar, const S* weight,
                      const WeightStrides& strides, const Epilogue<S, Arithmetic<S>>& e, S* out,
                      ParallelFor parallel_for) {
  STRUCTOPS_CONVOLVE(S, p.in_channels / p.groups, conv_transpose2d,
                     (p, input, planar, weight, strides, e, out, parallel_for));
}

template <class S>
void conv_transpose2d_grad_input(const ConvTransposeParams& p, const S* grad, bool planar, const S* weight,
                                 const WeightStrides& strides, S* grad_input, ParallelFor parallel_for) {
  STRUCTOPS_CONVOLVE(S, p.out_channels / p.groups, conv_transpose2d_grad_input,
                     (p, grad, planar, weight, strides, grad_input, parallel_for));
}

template <class S>
void conv_transpose2d_grad_weight(const ConvTransposeParams& p, const S* input, const S* grad, bool planar, S* out,
                                  const WeightStrides& strides, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(conv_transpose2d_grad_weight<S>(p, input, grad, planar, out, strides, parallel_for));
}

#define INSTANTIATE(S)                                                                                          \
  template void conv_transpose2d<S>(const ConvTransposeParams&, const S*, bool, const S*, const WeightStrides&, \
                                    const Epilogue<S, Arithmetic<S>>&, S*, ParallelFor);                        \
  template void conv_transpose2d_grad_input<S>(const ConvTransposeParams&, const S*, bool, const S*,            \
                                               const WeightStrides&, S*, ParallelFor);                          \
  template void conv_transpose2d_grad_weight<S>(const ConvTransposeParams&, const S*, const S*, bool, S*,       \
                                                const WeightStrides&, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace structops::cpu
