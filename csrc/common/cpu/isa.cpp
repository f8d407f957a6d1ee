#include "common/cpu/isa.h"

#include <cstdlib>
#include <cstring>

#include "common/tensor.h"

namespace structops::cpu {
namespace {

Isa detect() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#ifdef STRUCTOPS_ISA_LOWERED
  return avx2 ? Isa::avx512 : Isa::baseline;  // the 64-byte code, compiled for AVX2: see foreach_isa.h
#endif
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

Isa choose() {
  const Isa best = detect();
  const char* asked = std::getenv("STRUCTOPS_SIMD");
  if (asked == nullptr || *asked == '\0') return best;
  for (Isa level : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (std::strcmp(asked, isa_name(level)) == 0) return level < best ? level : best;
  STRUCTOPS_CHECK(false, "STRUCTOPS_SIMD must be baseline, avx2 or avx512, got ", asked);
}

}  // namespace

Isa isa() {
  static const Isa level = choose();
  return level;
}

const char* isa_name(Isa level) { return level == Isa::avx512 ? "avx512" : level == Isa::avx2 ? "avx2" : "baseline"; }

}  // namespace structops::cpu
