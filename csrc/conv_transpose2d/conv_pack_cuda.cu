// Maps and weights as the products want them: depth side by side, padded to whole 16 bytes. A transposition in shared
// memory, so that reads follow the source and writes the result.
#include "common/cuda/device.cuh"
#include "conv_transpose2d/conv_transpose2d_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kRows = 32, kDepths = 64, kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_pack_kernel(const ConvPack p, const T* __restrict__ source, T* __restrict__ packed) {
  __shared__ T tile[kDepths][kRows + 2];
  __shared__ int64_t to[kRows];
  const int64_t tiles = (p.padded + kDepths - 1) / kDepths;
  const int64_t depth = blockIdx.x % tiles * kDepths, rows = p.a.size * p.b.size * p.c.size * p.d.size;
  {
    const int at = threadIdx.x % kRows;
    const int64_t row = blockIdx.x / tiles * kRows + at;
    const int64_t d = row % p.d.size, c = row / p.d.size % p.c.size, ab = row / p.d.size / p.c.size;
    const int64_t b = ab % p.b.size, a = ab / p.b.size;
    if (threadIdx.x < kRows) to[at] = row < rows ? a * p.a.to + b * p.b.to + c * p.c.to + d * p.d.to : int64_t(-1);
    const T* from = source + a * p.a.from + b * p.b.from + c * p.c.from + d * p.d.from;
#pragma unroll
    for (int i = threadIdx.x / kRows; i < kDepths; i += kThreads / kRows)
      tile[i][at] = row < rows && depth + i < p.depth ? from[(depth + i) * p.depth_from] : down<T>(0);
  }
  __syncthreads();
#pragma unroll 4
  for (int i = threadIdx.x; i < kRows * kDepths; i += kThreads) {
    const int row = i / kDepths, k = i % kDepths;
    if (to[row] >= 0 && depth + k < p.padded) packed[to[row] + depth + k] = tile[k][row];
  }
}

}  // namespace

template <class T>
cudaError_t conv_pack(const ConvPack& p, const T* source, T* packed, cudaStream_t stream) {
  const int64_t rows = p.a.size * p.b.size * p.c.size * p.d.size;
  const int64_t blocks = ceil_div(rows, int64_t(kRows)) * ceil_div(p.padded, int64_t(kDepths));
  return launch(conv_pack_kernel<T>, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, p, source, packed);
}

#define INSTANTIATE(T) template cudaError_t conv_pack<T>(const ConvPack&, const T*, T*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
