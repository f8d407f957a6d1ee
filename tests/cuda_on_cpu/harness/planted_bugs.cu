// One planted bug per kernel, and kernels without one. What each flavour must say of each is the
// table in test_harness.py. x and y are float[61]: 244 bytes, so that malloc rounds up and a write
// one past the end goes unnoticed where nothing looks for it.
#include <cub/block/block_reduce.cuh>

#include "common/cuda/device.cuh"
#include "launchers.h"

namespace {

using structops::cuda::dynamic_smem;
using structops::cuda::launch;
constexpr int kCount = 61;

// Right: y[t] = x[60 - t] for all of these, unless said otherwise.

__global__ void clean_barrier(const float* x, float* y) {
  __shared__ float s[kCount];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
}

__global__ void missing_barrier(const float* x, float* y) {
  __shared__ float s[kCount];
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
}

// Reads what the previous thread wrote, which has run already where threads run in order.
__global__ void missing_barrier_hidden_by_forward(const float* x, float* y) {
  __shared__ float s[kCount];
  const int t = static_cast<int>(threadIdx.x), previous = (t + kCount - 1) % kCount;
  s[t] = x[kCount - 1 - t];
  y[previous] = t > 0 ? s[previous] : x[0];
}

__global__ void missing_barrier_hidden_by_reverse(const float* x, float* y) {
  __shared__ float s[kCount];
  const int t = static_cast<int>(threadIdx.x), next = (t + 1) % kCount;
  s[t] = x[kCount - 1 - t];
  y[next] = t < kCount - 1 ? s[next] : x[kCount - 1];
}

__global__ void missing_barrier_before_reuse(const float* x, float* y) {
  __shared__ float s[kCount];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  const float v = s[kCount - 1 - threadIdx.x];
  s[threadIdx.x] = v;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}

__global__ void clean_early_exit(const float* x, float* y) {
  __shared__ float s[kCount];
  if (threadIdx.x >= kCount) return;
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
}

__global__ void divergent_barrier(const float* x, float* y) {
  __shared__ float s[kCount];
  s[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32) {
    __syncthreads();
    y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
  } else {
    __syncthreads();
    y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
  }
}

__global__ void deadlock(const float* x, float* y) {
  if (threadIdx.x % 2 != 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x];
}

__global__ void write_past_end(const float* x, float* y) {
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x];
  if (threadIdx.x == 0) y[kCount] = 0;
}

__global__ void read_past_end(const float* x, float* y) {
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x];
  if (threadIdx.x == 0 && x[kCount] == 1e30f) y[0] = 0;
}

__global__ void read_of_empty(const float* x, float* y, const float* empty) {
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x] + empty[threadIdx.x];
}

__global__ void shared_overrun(const float* x, float* y) {
  __shared__ float s[kCount];
  float* p = s;
  p[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x == kCount - 1) p[threadIdx.x + 1] = 0;
  __syncthreads();
  y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
}

__global__ void dynamic_shared_overrun(const float* x, float* y) {
  float* s = dynamic_smem<float>();
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
}

__global__ void local_overrun(const float* x, float* y) {
  float part[4] = {};
  float* p = part;
  for (int i = 0; i <= 4 + static_cast<int>(threadIdx.x) / 64; ++i) p[i] = x[kCount - 1 - threadIdx.x];
  y[threadIdx.x] = part[3];
}

__global__ void misaligned_load(const float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + 1 + threadIdx.x / 4 * 4 % 56);
  y[threadIdx.x] = v.x * 0 + x[kCount - 1 - threadIdx.x];
}

__global__ void clean_vector_load(const float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + threadIdx.x / 4 * 4 % 56);
  y[threadIdx.x] = v.x * 0 + x[kCount - 1 - threadIdx.x];
}

__global__ void uninitialised_shared(const float* x, float* y) {
  __shared__ float s[kCount];
  if (threadIdx.x != 7) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[kCount - 1 - threadIdx.x];
}

__global__ void signed_overflow(const float* x, float* y, int step) {
  const int i = (static_cast<int>(threadIdx.x) + 1) * step;
  y[threadIdx.x] = i == 12345 ? 0 : x[kCount - 1 - threadIdx.x];
}

__global__ void float_to_int_overflow(const float* x, float* y, float scale) {
  const int i = static_cast<int>((x[threadIdx.x] + 1) * scale);
  y[threadIdx.x] = i == 12345 ? 0 : x[kCount - 1 - threadIdx.x];
}

// The later block wins: forward y = x reversed, since block 1 adds nothing.
__global__ void race_between_blocks(const float* x, float* y) {
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x] + (1 - static_cast<int>(blockIdx.x));
}

__global__ void race_with_an_atomic(const float* x, float* y) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  atomicAdd(&total, 1);  // a barrier belongs before this
  __syncthreads();
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x] + (total - kCount);
}

__global__ void clean_atomics(const float* x, float* y) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, 1);
  __syncthreads();
  y[threadIdx.x] = x[kCount - 1 - threadIdx.x] + (total - kCount);
}

// y[t] = x[0] + ... + x[31] from here on; one warp.

__global__ void clean_syncwarp(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  for (int o = 16; o > 0; o /= 2) {
    __syncwarp();
    const float v = threadIdx.x < o ? s[threadIdx.x + o] : 0.f;
    __syncwarp();
    s[threadIdx.x] += v;
  }
  __syncwarp();
  y[threadIdx.x] = s[0];
}

__global__ void missing_syncwarp(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  for (int o = 16; o > 0; o /= 2) {
    __syncwarp();
    const float v = threadIdx.x < o ? s[threadIdx.x + o] : 0.f;
    s[threadIdx.x] += v;
  }
  __syncwarp();
  y[threadIdx.x] = s[0];
}

// Each half of the warp synchronises itself, then reads from the other half.
__global__ void syncwarp_of_the_wrong_lanes(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  __syncwarp(threadIdx.x < 16 ? 0xffffu : 0xffff0000u);
  float total = 0;
  for (int i = 0; i < 32; ++i) total += s[i];
  y[threadIdx.x] = total;
}

__global__ void lane_outside_its_mask(const float* x, float* y) {
  float v = x[threadIdx.x];
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0x7fffffffu, v, o);
  y[threadIdx.x] = v;
}

__global__ void different_collectives(const float* x, float* y) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
  } else {
    v += __shfl_down_sync(0xffffffffu, v, 1);
  }
  y[threadIdx.x] = v;
}

__global__ void shuffle_from_exited_lane(const float* x, float* y) {
  float v = x[threadIdx.x];
  if (threadIdx.x == 31) {
    y[31] = 496;
    return;
  }
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  y[threadIdx.x] = v;
}

__global__ void clean_block_reduce(const float* x, float* y) {
  using Reduce = cub::BlockReduce<float, 32>;
  __shared__ Reduce::TempStorage storage;
  __shared__ float total;
  const float first = Reduce(storage).Sum(x[threadIdx.x]);
  __syncthreads();
  const float twice = Reduce(storage).Sum(2 * x[threadIdx.x]);
  if (threadIdx.x == 0) total = (first + twice) / 3;
  __syncthreads();
  y[threadIdx.x] = total;
}

__global__ void block_reduce_storage_reused(const float* x, float* y) {
  using Reduce = cub::BlockReduce<float, 32>;
  __shared__ Reduce::TempStorage storage;
  __shared__ float total;
  const float first = Reduce(storage).Sum(x[threadIdx.x]);
  const float twice = Reduce(storage).Sum(2 * x[threadIdx.x]);
  if (threadIdx.x == 0) total = (first + twice) / 3;
  __syncthreads();
  y[threadIdx.x] = total;
}

__global__ void spins_on_another_thread(const float* x, float* y) {
  volatile __shared__ int flag;
  if (threadIdx.x == 1) flag = 1;
  while (threadIdx.x == 0 && flag != 1) {
  }
  y[threadIdx.x] = x[threadIdx.x];
}

template <class... Parameters, class... Arguments>
cudaError_t run(void (*kernel)(Parameters...), int blocks, int threads, size_t shared_bytes, Arguments... arguments) {
  return launch(kernel, dim3(blocks), dim3(threads), shared_bytes, nullptr, arguments...);
}

}  // namespace

#define PLANTED(kernel, blocks, threads, shared_bytes, ...)                                 \
  EMULATE(                                                                                  \
      kernel, +[](const float* x, float* y) {                                               \
        return run(kernel, blocks, threads, shared_bytes, x, y __VA_OPT__(, ) __VA_ARGS__); \
      })

PLANTED(clean_barrier, 1, kCount, 0)
PLANTED(missing_barrier, 1, kCount, 0)
PLANTED(missing_barrier_hidden_by_reverse, 1, kCount, 0)
PLANTED(missing_barrier_hidden_by_forward, 1, kCount, 0)
PLANTED(missing_barrier_before_reuse, 1, kCount, 0)
PLANTED(clean_early_exit, 1, 96, 0)
PLANTED(divergent_barrier, 1, kCount, 0)
PLANTED(deadlock, 1, kCount, 0)
PLANTED(write_past_end, 1, kCount, 0)
PLANTED(read_past_end, 1, kCount, 0)
PLANTED(read_of_empty, 1, kCount, 0, static_cast<const float*>(nullptr))
PLANTED(shared_overrun, 1, kCount, 0)
PLANTED(dynamic_shared_overrun, 1, kCount, (kCount - 1) * sizeof(float))
PLANTED(local_overrun, 1, kCount, 0)
PLANTED(misaligned_load, 1, kCount, 0)
PLANTED(clean_vector_load, 1, kCount, 0)
PLANTED(uninitialised_shared, 1, kCount, 0)
PLANTED(signed_overflow, 1, kCount, 0, 49000000)
PLANTED(float_to_int_overflow, 1, kCount, 0, 1e30f)
PLANTED(race_between_blocks, 2, kCount, 0)
PLANTED(race_with_an_atomic, 1, kCount, 0)
PLANTED(clean_atomics, 1, kCount, 0)
PLANTED(clean_syncwarp, 1, 32, 0)
PLANTED(missing_syncwarp, 1, 32, 0)
PLANTED(syncwarp_of_the_wrong_lanes, 1, 32, 0)
PLANTED(lane_outside_its_mask, 1, 32, 0)
PLANTED(different_collectives, 1, 32, 0)
PLANTED(shuffle_from_exited_lane, 1, 32, 0)
PLANTED(clean_block_reduce, 1, 32, 0)
PLANTED(block_reduce_storage_reused, 1, 32, 0)
PLANTED(spins_on_another_thread, 1, kCount, 0)
namespace {
constexpr auto& too_many_threads = clean_early_exit;
constexpr auto& too_much_shared = dynamic_shared_overrun;
}  // namespace
PLANTED(too_many_threads, 1, 1025, 0)
PLANTED(too_much_shared, 1, kCount, 300 << 10)
