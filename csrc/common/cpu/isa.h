// Which instruction set the CPU kernels use: the best this machine has, or what STRUCTOPS_SIMD says.
#pragma once

namespace structops::cpu {

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

// Chosen once, at the first call. STRUCTOPS_SIMD=baseline|avx2|avx512 can lower it, never raise it.
Isa isa();
const char* isa_name(Isa level);

}  // namespace structops::cpu

// STRUCTOPS_ISA_DISPATCH(f<T>(a, b)) calls baseline::f, avx2::f or avx512::f of the enclosing
// structops::cpu, as made by common/cpu/foreach_isa.h.
#if defined(__x86_64__)
#define STRUCTOPS_ISA_DISPATCH(...)     \
  switch (::structops::cpu::isa()) {    \
    case ::structops::cpu::Isa::avx512: \
      avx512::__VA_ARGS__;              \
      break;                            \
    case ::structops::cpu::Isa::avx2:   \
      avx2::__VA_ARGS__;                \
      break;                            \
    default:                            \
      baseline::__VA_ARGS__;            \
      break;                            \
  }
#else
#define STRUCTOPS_ISA_DISPATCH(...) baseline::__VA_ARGS__
#endif
