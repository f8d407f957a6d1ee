// Compiles one kernel file once per instruction set, each in its own namespace:
//
//   #include <everything the kernel file needs>      // before: it is included inside a namespace
//   #define STRUCTOPS_ISA_FILE "roi_align/roi_align_cpu_kernel.h"
//   #include "common/cpu/foreach_isa.h"
//   ...
//   STRUCTOPS_ISA_DISPATCH(roi_align_forward<T>(p, ...));
//
// The kernel file sees STRUCTOPS_VECTOR_BYTES (16, 32 or 64) and STRUCTOPS_ISA_AVX2 / _AVX512 (0 or 1), and
// writes vectors with the compiler's vector extensions, so the widest code also runs, lowered, on a
// machine without it: -DSTRUCTOPS_ISA_LOWERED tests the 64-byte logic anywhere.
//
// A pragma rather than per-file flags: standard headers included before it keep the baseline
// target, so no AVX-512 copy of an inline library function can be picked by the linker for a machine
// that lacks it.
#include "common/cpu/isa.h"

#define STRUCTOPS_ISA_AVX2 0
#define STRUCTOPS_ISA_AVX512 0
#define STRUCTOPS_VECTOR_BYTES 16
namespace structops::cpu::baseline {
#include STRUCTOPS_ISA_FILE
}
#undef STRUCTOPS_ISA_AVX2
#undef STRUCTOPS_VECTOR_BYTES

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#define STRUCTOPS_ISA_AVX2 1
#define STRUCTOPS_VECTOR_BYTES 32
namespace structops::cpu::avx2 {
#include STRUCTOPS_ISA_FILE
}
#undef STRUCTOPS_ISA_AVX512
#undef STRUCTOPS_VECTOR_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#ifdef STRUCTOPS_ISA_LOWERED
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#define STRUCTOPS_ISA_AVX512 0
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
#define STRUCTOPS_ISA_AVX512 1
#endif
#define STRUCTOPS_VECTOR_BYTES 64
namespace structops::cpu::avx512 {
#include STRUCTOPS_ISA_FILE
}
#undef STRUCTOPS_ISA_AVX2
#undef STRUCTOPS_VECTOR_BYTES
#pragma GCC pop_options
#endif

#undef STRUCTOPS_ISA_AVX512
#undef STRUCTOPS_ISA_FILE
