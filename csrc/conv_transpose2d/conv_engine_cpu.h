// What conv_task_cpu_kernel.h needs outside of the namespaces of instruction sets.
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
