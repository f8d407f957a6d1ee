// Transposed convolution on the CPU: the kernel of every instruction set, and the choice between them.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/cpu/memory.h"
#include "common/tensor.h"
#include "conv_transpose2d/conv_transpose2d_cpu.h"

// Loops over registers. Unrolled late, as -O3 would by itself, they leave an array in memory behind, which every tile
// of sums is copied through: 8% of the mask head's time.
#define STRUCTOPS_UNROLL _Pragma("GCC unroll 8")

#define STRUCTOPS_ISA_FILE "conv_transpose2d/conv_transpose2d_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"
#undef STRUCTOPS_UNROLL

namespace structops::cpu {
namespace {

// Whether the machine multiplies pairs of bfloat16 (and was not told to do without wide vectors).
bool has_bfloat16() {
#if defined(__x86_64__) && !defined(STRUCTOPS_ISA_LOWERED)
  static const bool has = isa() == Isa::avx512 && __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

}  // namespace

template <class S>
void conv_transpose2d(const ConvTransposeParams& p, const S* input, bool planar, const S* weight,
                      const WeightStrides& strides, const Epilogue<S, Arithmetic<S>>& e, S* out,
                      ParallelFor parallel_for) {
#if defined(__x86_64__) && !defined(STRUCTOPS_ISA_LOWERED)
  if constexpr (std::is_same_v<S, BFloat16>)
    if (has_bfloat16() && p.in_channels / p.groups % 2 == 0)
      return avx512::conv_transpose2d<S, BFloat16>(p, input, planar, weight, strides, e, out, parallel_for);
#endif
  STRUCTOPS_ISA_DISPATCH(conv_transpose2d<S, Arithmetic<S>>(p, input, planar, weight, strides, e, out, parallel_for));
}

template <class S>
void conv_transpose2d_grad_input(const ConvTransposeParams& p, const S* grad, bool planar, const S* weight,
                                 const WeightStrides& strides, S* grad_input, ParallelFor parallel_for) {
#if defined(__x86_64__) && !defined(STRUCTOPS_ISA_LOWERED)
  if constexpr (std::is_same_v<S, BFloat16>)
    if (has_bfloat16() && p.out_channels / p.groups % 2 == 0)
      return avx512::conv_transpose2d_grad_input<S, BFloat16>(p, grad, planar, weight, strides, grad_input,
                                                              parallel_for);
#endif
  STRUCTOPS_ISA_DISPATCH(
      conv_transpose2d_grad_input<S, Arithmetic<S>>(p, grad, planar, weight, strides, grad_input, parallel_for));
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
