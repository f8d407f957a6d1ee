// CPU twins of one-instruction PTX wrappers, from the fragment layouts that the PTX ISA gives.
// csrc/common/cuda/ptx.cuh takes these with using-declarations under STRUCTOPS_CUDA_ON_CPU.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_on_cpu/runtime.h"

namespace cuda_on_cpu::ptx {

struct AsyncCopy {
  void* destination;
  const void* source;
  bool read;  // false: fill with zeros
};
void async_copy_issue(const AsyncCopy& copy);
void async_copy_commit();
// Carries out all but the latest `pending` groups of the calling thread.
void async_copy_wait(int pending, void (*carry_out)(const AsyncCopy&));

// cp.async.cg.shared.global, 16 bytes. Nothing is copied before the wait, so a forgotten wait reads NaN.
inline void cp_async16(void* shared, const void* global, bool read, Site site = Site::here()) {
  const auto address = reinterpret_cast<std::uintptr_t>(shared) | reinterpret_cast<std::uintptr_t>(global);
  if (address % 16 != 0) kernel_error("misaligned cp.async", site);
  async_copy_issue({shared, global, read});
}
inline void cp_async_commit() { async_copy_commit(); }
template <int kPending>
void cp_async_wait() {
  async_copy_wait(kPending,
                  [](const AsyncCopy& copy) {  // a lambda of the kernel's file: the race checker sees the accesses
                    auto* to = static_cast<std::uint32_t*>(copy.destination);
                    const auto* from = static_cast<const std::uint32_t*>(copy.source);
                    for (int i = 0; i < 4; ++i) to[i] = copy.read ? from[i] : 0u;
                  });
}

// st.global.v4.b32.
inline void store16(void* global, const uint4& words, Site site = Site::here()) {
  if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0) kernel_error("misaligned 16-byte store", site);
  *static_cast<uint4*>(global) = words;
}

// ldmatrix.sync.aligned.m8n8.x4[.trans].shared.b16. Every lane reads the row that it names, and then they exchange.
template <bool kTransposed>
void ldmatrix_x4(unsigned (&d)[4], const void* row, Site site = Site::here()) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) kernel_error("misaligned ldmatrix", site);
  struct Payload {
    std::uint32_t words[4];
    unsigned* d;
  } payload{{}, d};
  for (int i = 0; i < 4; ++i) payload.words[i] = static_cast<const std::uint32_t*>(row)[i];
  const Combine combine = [](void** payloads, std::uint32_t present, int) {
    if (present != 0xffffffffu) kernel_error("ldmatrix by an incomplete warp", Site::here());
    const auto half = [&](int matrix, int of_row, int column) {
      const auto* p = static_cast<const Payload*>(payloads[matrix * 8 + of_row]);
      return p->words[column / 2] >> (column % 2 * 16) & 0xffffu;
    };
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int a = lane / 4, b = lane % 4 * 2;
        static_cast<Payload*>(payloads[lane])->d[i] =
            kTransposed ? half(i, b, a) | half(i, b + 1, a) << 16 : half(i, a, b) | half(i, a, b + 1) << 16;
      }
  };
  warp_collective(0xffffffffu, WarpOp::matrix, kTransposed ? 1 : 2, &payload, combine, site);
}

inline float element(__half_raw raw) { return __half2float(__half(raw)); }
inline float element(__nv_bfloat16_raw raw) { return __bfloat162float(__nv_bfloat16(raw)); }

// mma.sync.aligned.m16n8k16.row.col.f32.<T>.<T>.f32, d += a b.
template <class T = __half>
void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Site site = Site::here()) {
  struct Payload {
    float* d;
    const unsigned *a, *b;
  } payload{d, a, b};
  const Combine combine = [](void** payloads, std::uint32_t present, int) {
    if (present != 0xffffffffu) kernel_error("mma.sync by an incomplete warp", Site::here());
    const auto at = [](const unsigned* registers, int i) {
      std::conditional_t<std::is_same_v<T, __half>, __half_raw, __nv_bfloat16_raw> raw;
      raw.x = static_cast<unsigned short>(registers[i / 2] >> (i % 2 * 16));
      return element(raw);
    };
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const auto* p = static_cast<const Payload*>(payloads[lane]);
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 8; ++i) left[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = at(p->a, i);
      for (int i = 0; i < 4; ++i) right[pair + i % 2 + i / 2 * 8][group] = at(p->b, i);
    }
    for (int lane = 0; lane < 32; ++lane) {
      auto* p = static_cast<Payload*>(payloads[lane]);
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += left[group + i / 2 * 8][k] * right[k][pair + i % 2];
        p->d[i] += sum;
      }
    }
  };
  warp_collective(0xffffffffu, WarpOp::matrix, 0, &payload, combine, site);
}

}  // namespace cuda_on_cpu::ptx
