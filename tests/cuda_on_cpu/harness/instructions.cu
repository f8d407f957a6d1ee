// What the emulator gives kernels, instruction by instruction: warp functions, and a matrix product
// through cp.async + mma.sync and through wmma. Clean; the results are checked in test_harness.py.
#include <mma.h>

#include "common/cuda/device.cuh"
#include "launchers.h"

namespace {

using structops::cuda::launch;
namespace ptx = cuda_on_cpu::ptx;

// out [kRows, 32], one row per instruction, one warp. x [32]
__global__ void warp_functions(const int* x, int* out) {
  const unsigned full = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x), v = x[lane];
  int row = 0;
  const auto put = [&](int value) { out[32 * row++ + lane] = value; };
  put(__shfl_sync(full, v, lane + 5, 16));
  put(__shfl_up_sync(full, v, 3));
  put(__shfl_up_sync(full, v, 3, 8));
  put(__shfl_down_sync(full, v, 3));
  put(__shfl_down_sync(full, v, 3, 8));
  put(__shfl_xor_sync(full, v, 9));
  put(static_cast<int>(__ballot_sync(full, v > 0)));
  put(__any_sync(full, v == x[4]) * 2 + __any_sync(full, v > 1000));
  put(__all_sync(full, v < 1000) * 2 + __all_sync(full, v > 0));
  put(static_cast<int>(__match_any_sync(full, v % 4)));
  put(__reduce_add_sync(full, v));
  put(__reduce_min_sync(full, v));
  put(__reduce_max_sync(full, v));
  put(__reduce_or_sync(full, v & 63));
  // Halves of the warp in different collectives, with masks of their own.
  int half = 0;
  if (lane < 16) {
    half = __shfl_xor_sync(0xffffu, v, 1);
  } else {
    for (int i = 0; i < 3; ++i) half += __reduce_add_sync(0xffff0000u, v);
  }
  put(half);
}

// One block of 1024 threads in three dimensions: barriers with counts.
__global__ void large_block(const int* x, int* out) {
  __shared__ int s[1024];
  const int t = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  int v = x[t];
  for (int round = 0; round < 20; ++round) {
    s[t] = v;
    __syncthreads();
    v = s[(t * 7 + 3) % 1024];
    __syncthreads();
  }
  out[t] = v + __syncthreads_count(t % 3 == 0) + __syncthreads_or(t == 5) + 2 * __syncthreads_and(t == 5);
}

constexpr int kTileM = 64, kTileN = 32, kTileK = 32, kPitch = kTileK + 8;

// One tile [rows, 32] of a [count, k] matrix to shared memory, zeros outside; 128 threads.
__device__ void stage(__half (*tile)[kPitch], int rows, const __half* matrix, int first, int count, int k0, int k) {
  for (int i = threadIdx.x; i < rows * kTileK / 8; i += 128) {
    const int row = i / (kTileK / 8), column = i % (kTileK / 8) * 8;
    const bool inside = first + row < count && k0 + column < k;
    ptx::cp_async16(&tile[row][column], inside ? matrix + static_cast<size_t>(first + row) * k + k0 + column : matrix,
                    inside);
  }
}

// c [m, n] = a [m, k] b [n, k]^T; k a multiple of 8.
template <bool kWait>
__global__ void gemm_mma(const __half* a, const __half* b, float* c, int m, int n, int k) {
  __shared__ __align__(16) __half tile_a[kTileM][kPitch], tile_b[kTileN][kPitch];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, pair = lane % 4 * 2;
  const int m0 = blockIdx.y * kTileM, n0 = blockIdx.x * kTileN;
  float sum[kTileN / 8][4] = {};
  for (int k0 = 0; k0 < k; k0 += kTileK) {
    stage(tile_a, kTileM, a, m0, m, k0, k);
    stage(tile_b, kTileN, b, n0, n, k0, k);
    ptx::cp_async_commit();
    if (kWait) ptx::cp_async_wait<0>();
    __syncthreads();
    for (int kk = 0; kk < kTileK; kk += 16) {
      const auto pair_at = [](const __half* p) { return *reinterpret_cast<const unsigned*>(p); };
      const __half* upper = &tile_a[warp * 16 + group][kk + pair];
      const __half* lower = &tile_a[warp * 16 + group + 8][kk + pair];
      const unsigned left[4] = {pair_at(upper), pair_at(lower), pair_at(upper + 8), pair_at(lower + 8)};
      for (int j = 0; j < kTileN / 8; ++j) {
        const __half* p = &tile_b[j * 8 + group][kk + pair];
        const unsigned right[2] = {pair_at(p), pair_at(p + 8)};
        ptx::mma_m16n8k16(sum[j], left, right);
      }
    }
    __syncthreads();
  }
  for (int j = 0; j < kTileN / 8; ++j)
    for (int i = 0; i < 4; ++i) {
      const int row = m0 + warp * 16 + group + i / 2 * 8, column = n0 + j * 8 + pair + i % 2;
      if (row < m && column < n) c[static_cast<size_t>(row) * n + column] = sum[j][i];
    }
}

// The same; m, n and k multiples of 16.
__global__ void gemm_wmma(const __half* a, const __half* b, float* c, int m, int n, int k) {
  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, 16, __half, row_major> left;
  fragment<matrix_b, 16, 16, 16, __half, col_major> right;
  fragment<accumulator, 16, 16, 16, float> sum;
  fill_fragment(sum, 0.f);
  const int row = blockIdx.y * 16, column = blockIdx.x * 16;
  for (int k0 = 0; k0 < k; k0 += 16) {
    load_matrix_sync(left, a + static_cast<size_t>(row) * k + k0, k);
    load_matrix_sync(right, b + static_cast<size_t>(column) * k + k0, k);
    mma_sync(sum, left, right, sum);
  }
  store_matrix_sync(c + static_cast<size_t>(row) * n + column, sum, n, mem_row_major);
}

// x [4, 8, 8], out [2, 4, 32] pairs of halves: what each lane gets of four matrices and of their transposed.
__global__ void matrix_loads(const __half* x, unsigned* out) {
  __shared__ __align__(16) __half rows[32][8];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) rows[lane][i] = x[lane * 8 + i];
  __syncwarp();
  unsigned got[4];
  ptx::ldmatrix_x4<false>(got, rows[lane]);
  for (int i = 0; i < 4; ++i) out[i * 32 + lane] = got[i];
  ptx::ldmatrix_x4<true>(got, rows[lane]);
  for (int i = 0; i < 4; ++i) out[(4 + i) * 32 + lane] = got[i];
}

// a, b [n]; out [5, n]
template <class T>
__global__ void half_arithmetic(const T* a, const T* b, T* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  out[i] = a[i] + b[i];
  out[n + i] = a[i] * b[i];
  out[2 * n + i] = __hfma(a[i], b[i], a[i]);
  out[3 * n + i] = structops::cuda::down<T>(structops::cuda::up(a[i]) / 3);
  out[4 * n + i] = __hmax(a[i], b[i]);
}

template <bool kWait>
cudaError_t run_mma(const __half* a, const __half* b, float* c, int m, int n, int k) {
  const dim3 grid((n + kTileN - 1) / kTileN, (m + kTileM - 1) / kTileM);
  return launch(gemm_mma<kWait>, grid, dim3(128), 0, nullptr, a, b, c, m, n, k);
}
cudaError_t run_wmma(const __half* a, const __half* b, float* c, int m, int n, int k) {
  return launch(gemm_wmma, dim3(n / 16, m / 16), dim3(32), 0, nullptr, a, b, c, m, n, k);
}
cudaError_t run_matrix_loads(const __half* x, unsigned* out) {
  return launch(matrix_loads, dim3(1), dim3(32), 0, nullptr, x, out);
}
cudaError_t run_warp(const int* x, int* out) { return launch(warp_functions, dim3(1), dim3(32), 0, nullptr, x, out); }
cudaError_t run_large(const int* x, int* out) {
  return launch(large_block, dim3(1), dim3(32, 8, 4), 0, nullptr, x, out);
}
template <class T>
cudaError_t run_half(const T* a, const T* b, T* out, int n) {
  return launch(half_arithmetic<T>, dim3((n + 63) / 64), dim3(64), 0, nullptr, a, b, out, n);
}

}  // namespace

EMULATE(warp_functions, run_warp)
EMULATE(large_block, run_large)
EMULATE(gemm_mma, run_mma<true>)
EMULATE(gemm_mma_without_wait, run_mma<false>)
EMULATE(gemm_wmma, run_wmma)
EMULATE(matrix_loads, run_matrix_loads)
EMULATE(half_arithmetic_float16, run_half<__half>)
EMULATE(half_arithmetic_bfloat16, run_half<__nv_bfloat16>)
