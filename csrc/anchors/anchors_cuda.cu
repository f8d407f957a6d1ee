// Anchors, default boxes and grid points on the GPU: one launch for all levels, one thread a row.
//
// 268,569 anchors in float are 4.3 MB of output, 1.3 us of an H100's memory, and less than a launch takes. torchvision
// needs some nine launches a level, and for strides that are tensors a fill each.
#include <limits>

#include "anchors/anchors_cuda.h"
#include "common/cuda/device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

template <class R>
struct Round {
  __device__ __forceinline__ static acc_t<R> up(R v) { return cuda::up(v); }
  __device__ __forceinline__ static acc_t<R> to_stored(acc_t<R> v) { return cuda::up(down<R>(v)); }
};

template <class I>
__device__ __forceinline__ AnchorPlace<int64_t> place(int64_t i, const GridLevel& level) {
  const AnchorPlace<I> at = anchor_place(I(i), I(level.width), I(level.cells));
  return {at.y, at.x, at.cell};
}

// out [rows, Row::kColumns]. narrow: rows fit an int, whose divisions are several times faster.
template <class Row>
__global__ void __launch_bounds__(kThreads)
    grid_rows_kernel(const GridLevels all, const Row row, bool narrow, typename Row::Stored* __restrict__ out) {
  using R = typename Row::Stored;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= all.rows) return;
  int l = 0;
#pragma unroll
  for (int next = 1; next < kMaxGridLevels; ++next)  // in order: an empty level begins where the next does
    if (next < all.levels && all.level[next].first <= i) l = next;
  const GridLevel& level = all.level[l];
  const int64_t in_level = i - level.first;
  const AnchorPlace<int64_t> at = narrow ? place<int>(in_level, level) : place<int64_t>(in_level, level);
  const auto box = row(level, at.y, at.x, at.cell);
  // As wide as the row, but at most 16 bytes: of doubles, two halves.
  constexpr int V = Row::kColumns == 4 && sizeof(R) < 8 ? 4 : 2;
  const R values[4] = {down<R>(box.x1), down<R>(box.y1), down<R>(box.x2), down<R>(box.y2)};
#pragma unroll
  for (int part = 0; part < Row::kColumns / V; ++part) {
    Pack<R, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.value[v] = values[part * V + v];
    reinterpret_cast<Pack<R, V>*>(out + i * Row::kColumns)[part] = pack;
  }
}

template <class Row>
cudaError_t run(const LevelCells& cells, const int64_t* geometry, const double* divisors, int64_t levels,
                const Row& row, typename Row::Stored* out, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  const void* data[kMaxGridLevels] = {cells.l0, cells.l1, cells.l2, cells.l3, cells.l4, cells.l5, cells.l6, cells.l7};
  const GridLevels all = grid_levels(geometry, divisors, data, levels);
  const int64_t blocks = ceil_div<int64_t>(all.rows, kThreads);
  if (blocks > kInt) return cudaErrorInvalidValue;
  return launch(grid_rows_kernel<Row>, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, all, row, all.rows <= kInt,
                out);
}

}  // namespace

template <class T>
cudaError_t generate_anchors(const LevelCells& cells, const int64_t* geometry, int64_t levels, T* out,
                             cudaStream_t stream) {
  return run(cells, geometry, nullptr, levels, AnchorRow<acc_t<T>, T, Round<T>>{}, out, stream);
}

template <class T>
cudaError_t default_boxes(const LevelCells& pairs, const int64_t* geometry, const double* divisors, int64_t levels,
                          int64_t image_height, int64_t image_width, bool clip, T* out, cudaStream_t stream) {
  const DefaultBoxRow<T> row{T(image_height), T(image_width), clip};
  return run(pairs, geometry, divisors, levels, row, out, stream);
}

template <class T>
cudaError_t yolo_grid(const int64_t* geometry, int64_t levels, double offset, bool with_stride, T* out,
                      cudaStream_t stream) {
  using A = acc_t<T>;
  if (with_stride) return run({}, geometry, nullptr, levels, PointRow<A, T, 4>{A(offset)}, out, stream);
  return run({}, geometry, nullptr, levels, PointRow<A, T, 2>{A(offset)}, out, stream);
}

#define INSTANTIATE(T)                                                                                    \
  template cudaError_t generate_anchors<T>(const LevelCells&, const int64_t*, int64_t, T*, cudaStream_t); \
  template cudaError_t yolo_grid<T>(const int64_t*, int64_t, double, bool, T*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE
template cudaError_t default_boxes<float>(const LevelCells&, const int64_t*, const double*, int64_t, int64_t, int64_t,
                                          bool, float*, cudaStream_t);
template cudaError_t default_boxes<double>(const LevelCells&, const int64_t*, const double*, int64_t, int64_t, int64_t,
                                           bool, double*, cudaStream_t);

}  // namespace structops::cuda
