// What every CUDA kernel stands on: launching, dynamic shared memory, number types, 16-byte vectors.
//
// The one file that knows whether a kernel is compiled by nvcc for a GPU or by a host compiler for
// the emulator (STRUCTOPS_CUDA_ON_CPU; see tests/cuda_on_cpu).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace structops::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// Shared memory every supported GPU grants a block without asking, and what launch() may ask for:
// sm_86 and sm_89 stop at 99 KiB.
constexpr size_t kDefaultSharedBytes = 48 * 1024, kMaxSharedBytes = 96 * 1024;

template <class... P, class... A>
inline cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                          A&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
#ifdef STRUCTOPS_CUDA_ON_CPU
  return cuda_on_cpu::launch(kernel, grid, block, shared_bytes, stream, std::forward<A>(args)...);
#else
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...);
#endif
}

// The block's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_smem() {
#ifdef STRUCTOPS_CUDA_ON_CPU
  return static_cast<T*>(cuda_on_cpu::dynamic_smem());
#else
  extern __shared__ __align__(16) unsigned char structops_dynamic_smem[];
  return reinterpret_cast<T*>(structops_dynamic_smem);
#endif
}

// The pointer (or offset), of which the compiler forgets how it was made. Otherwise it keeps the parts and adds
// them up again at every load (8 instructions instead of 1 in the inner loop of RoI Align).
template <class T>
__device__ __forceinline__ T* opaque(T* pointer) {
#ifndef STRUCTOPS_CUDA_ON_CPU
  asm("" : "+l"(pointer));
#endif
  return pointer;
}

__device__ __forceinline__ int64_t opaque(int64_t offset) {
#ifndef STRUCTOPS_CUDA_ON_CPU
  asm("" : "+l"(offset));
#endif
  return offset;
}

// One rounding each, never contracted into an fma, whatever the flags.
#ifdef STRUCTOPS_CUDA_ON_CPU
inline float add_rn(float a, float b) { return a + b; }
inline float sub_rn(float a, float b) { return a - b; }
inline float mul_rn(float a, float b) { return a * b; }
inline float div_rn(float a, float b) { return a / b; }
inline double add_rn(double a, double b) { return a + b; }
inline double sub_rn(double a, double b) { return a - b; }
inline double mul_rn(double a, double b) { return a * b; }
inline double div_rn(double a, double b) { return a / b; }
#else
__device__ __forceinline__ float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub_rn(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float div_rn(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ double add_rn(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double sub_rn(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double mul_rn(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double div_rn(double a, double b) { return __ddiv_rn(a, b); }
#endif

// Kernels are built without contraction (positions must round as they do on the CPU), so sums that
// want an fma say so.
__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

// acc_t: what a storage type is summed in.
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using acc_t = typename Accumulator<T>::type;

__device__ __forceinline__ float up(__half v) { return __half2float(v); }
__device__ __forceinline__ float up(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float up(float v) { return v; }
__device__ __forceinline__ double up(double v) { return v; }

template <class T>
__device__ __forceinline__ T down(acc_t<T> v) {
  return v;
}
template <>
__device__ __forceinline__ __half down<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 down<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// V values that move as one access: 16 bytes when V = kPack<T>.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T value[V];
};
template <class T, int V>
__device__ __forceinline__ acc_t<T> up(const Pack<T, V>& pack, int v) {
  return up(pack.value[v]);
}
// Taken from the loaded words: as eight separate halves they would cost the registers of eight more.
template <int V>
  requires(V % 2 == 0)
__device__ __forceinline__ float up(const Pack<__nv_bfloat16, V>& pack, int v) {
  unsigned word;
  memcpy(&word, &pack.value[v / 2 * 2], sizeof(word));
  return __uint_as_float(v % 2 == 0 ? word << 16 : word & 0xffff0000u);
}
// Through the read-only path; at must be aligned to the pack.
template <class T, int V>
__device__ __forceinline__ Pack<T, V> load_pack(const void* at) {
  static_assert(V == 1 || sizeof(Pack<T, V>) == sizeof(uint4));
  Pack<T, V> pack;
  if constexpr (V == 1) {
    pack.value[0] = __ldg(static_cast<const T*>(at));
  } else {
    const uint4 words = __ldg(static_cast<const uint4*>(at));
    memcpy(&pack, &words, sizeof(pack));
  }
  return pack;
}
template <class T>
constexpr int kPack = 16 / int(sizeof(T));

template <class I>
constexpr I ceil_div(I a, I b) {
  return (a + b - 1) / b;
}

}  // namespace structops::cuda
