// The instructions that CUDA has no function for, one wrapper each. Their twins for the emulator are in
// tests/cuda_on_cpu/emulator/include/cuda_on_cpu/ptx.h.
#pragma once
#include <cstring>
#include <type_traits>

#include "common/cuda/device.cuh"
#ifdef STRUCTOPS_CUDA_ON_CPU
#include "cuda_on_cpu/ptx.h"
#endif

namespace structops::cuda::ptx {

#ifdef STRUCTOPS_CUDA_ON_CPU
using cuda_on_cpu::ptx::cp_async16;
using cuda_on_cpu::ptx::cp_async_commit;
using cuda_on_cpu::ptx::cp_async_wait;
using cuda_on_cpu::ptx::ldmatrix_x4;
using cuda_on_cpu::ptx::mma_m16n8k16;
using cuda_on_cpu::ptx::store16;
#else
// Copies 16 bytes (both addresses aligned to them) from global to shared memory while the thread goes on; zeros where
// `read` is false, and then the source is not looked at.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool read) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(read ? 16 : 0) : "memory");
}
// Closes a group of copies, which may be empty.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all but the latest kPending groups of this thread.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Stores 16 bytes (the address aligned to them) as one access, which the compiler otherwise likes to take apart where
// it knows the values one by one: then each of four or eight stores goes through every 32 bytes that a warp writes.
__device__ __forceinline__ void store16(void* global, const uint4& words) {
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(global), "r"(words.x), "r"(words.y), "r"(words.z),
               "r"(words.w)
               : "memory");
}

// Four 8 x 8 matrices of halves from shared memory, by one warp: lane l gives the address of row l % 8 (16 bytes,
// aligned) of matrix l / 8, and gets of matrix i the pair of row l / 4, columns l % 4 * 2 and the next; of the
// transposed matrix if kTransposed.
template <bool kTransposed>
__device__ __forceinline__ void ldmatrix_x4(unsigned (&d)[4], const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(from)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(from)
                 : "memory");
}

// d [16 x 8] += a [16 x 16] b [16 x 8], of one warp, on tensor cores; T is __half or __nv_bfloat16. With g = lane / 4
// and p = lane % 4 * 2, a thread has of a the pairs at rows g and g + 8, columns p and then p + 8, of b those at rows
// p and p + 8, column g, and of d those at rows g and g + 8, columns p and p + 1.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (std::is_same_v<T, __half>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// A pack to where packs are aligned, as one access if it has 16 bytes.
template <class T, int V>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, V>& pack) {
  if constexpr (sizeof(pack) == sizeof(uint4)) {
    uint4 words;
    memcpy(&words, &pack, sizeof(words));
    store16(to, words);
  } else {
    *reinterpret_cast<Pack<T, V>*>(to) = pack;
  }
}

}  // namespace structops::cuda::ptx
