// CUDA C++ as ordinary C++20: force-included before a kernel file (g++ -x c++ -include cuda_on_cpu.h).
//
// NVIDIA's headers come first, since vector types, __half, __nv_bfloat16, cudaError_t and dim3 all
// work under g++. Only then do the language extensions get their meaning here, so that the kernel
// file's own #include <cuda_runtime.h> finds its guard set and changes nothing.
#pragma once
#define STRUCTOPS_CUDA_ON_CPU 1

// clang-format off
#include <cuda_runtime.h>  // first: the stand-ins for crt/ do not serve the others alone
#include <cuda_bf16.h>
#include <cuda_fp16.h>
// clang-format on

// Every standard header that kernels use must be read before the qualifiers are redefined.
#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __launch_bounds__
#undef __grid_constant__
#undef __forceinline__
// __noinline__ stays undefined: libstdc++ spells an attribute with it.
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))

#ifdef CUDA_ON_CPU_SHARED_IN_TLS
// One block runs at a time, so a static is as good as shared. In the thread-local segment the
// runtime can find them all, which is what it takes to fill them with NaN before every block.
#define __shared__ static thread_local
#else
// AddressSanitizer puts red zones round ordinary statics only.
#define __shared__ static
#endif

#include "cuda_on_cpu/runtime.h"

#define threadIdx (::cuda_on_cpu::current.thread_index)
#define blockIdx (::cuda_on_cpu::current.block_index)
#define blockDim (::cuda_on_cpu::current.block_dim)
#define gridDim (::cuda_on_cpu::current.grid_dim)
inline constexpr int warpSize = 32;

#include "cuda_on_cpu/atomics.h"
#include "cuda_on_cpu/intrinsics.h"
#include "cuda_on_cpu/ptx.h"
#include "cuda_on_cpu/warp.h"
