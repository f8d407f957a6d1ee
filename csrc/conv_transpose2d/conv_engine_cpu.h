// The engine of transposed convolutions on the CPU: what its kernel files need outside of the namespaces of instruction
// sets. In the order of a call:
//   conv_axis.h                 an axis in phases
//   conv_plan.h, conv_gemm.h    the products that make up a convolution: pixels through taps, times weights
//   conv_rows_cpu_kernel.h      pixels with their channels side by side, weights in panels
//   conv_panels_cpu.h           panels kept from call to call
//   conv_task_cpu_kernel.h      a product made ready
//   conv_convolve_cpu_kernel.h  tasks shared between threads, chunk by chunk
//   conv_chunk_cpu_kernel.h     positions, their pixels, tile after tile of sums
//   conv_product_cpu_kernel.h   a tile in registers
//   conv_squares_cpu_kernel.h   the same with combined taps, for taps of 2 x 2
//   conv_put_cpu_kernel.h       sums to where they belong in the output
//   conv_epilogue_cpu.h         scale, offset, residual and activation on the way
// Beside it: conv_depthwise_cpu_kernel.h, for each channel to itself, with conv_depthwise_row_cpu_kernel.h,
// conv_few_cpu_kernel.h, for few outputs a pixel, and conv_grad_weight_cpu_kernel.h.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/cpu/isa.h"
#include "common/cpu/memory.h"
#include "common/tensor.h"
#include "conv_transpose2d/conv_panels_cpu.h"
#include "conv_transpose2d/conv_plan.h"

// Loops over registers. Unrolled late, as -O3 would by itself, they leave an array in memory behind, which every tile
// of sums is copied through: 8% of the mask head's time.
#define STRUCTOPS_UNROLL _Pragma("GCC unroll 8")

namespace structops::cpu {

template <class S>
using Arithmetic = std::conditional_t<std::is_same_v<S, double>, double, float>;

// Whether the machine multiplies pairs of bfloat16 (and was not told to do without wide vectors).
inline bool has_bfloat16() {
#if defined(__x86_64__) && !defined(STRUCTOPS_ISA_LOWERED)
  static const bool has = isa() == Isa::avx512 && __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

}  // namespace structops::cpu

// STRUCTOPS_CONVOLVE(S, depth, f, (a, b)) calls f<S, R>(a, b) of the instruction set, where R is what pixels are read
// in: bfloat16 itself where the machine multiplies it and `depth` is even, else the type of arithmetic.
#if defined(__x86_64__) && !defined(STRUCTOPS_ISA_LOWERED)
#define STRUCTOPS_CONVOLVE(S, depth, f, arguments)                                     \
  do {                                                                                 \
    if constexpr (std::is_same_v<S, BFloat16>)                                         \
      if (has_bfloat16() && (depth) % 2 == 0) return avx512::f<S, BFloat16> arguments; \
    STRUCTOPS_ISA_DISPATCH(f<S, Arithmetic<S>> arguments);                             \
  } while (false)
#else
#define STRUCTOPS_CONVOLVE(S, depth, f, arguments) STRUCTOPS_ISA_DISPATCH(f<S, Arithmetic<S>> arguments)
#endif
