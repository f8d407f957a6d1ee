// IoU of boxes on the GPU. Pairs are taken in tiles: a thread keeps the box of its column in registers and meets the
// tile's rows, which wait in shared memory. So a pair costs one store of 4 bytes, and the boxes next to nothing.
//
// The backward goes through the same tiles once for both sets: a column's sum over the tile's rows stays in its
// thread's registers, a row's sum over the columns is made by shuffles. Tiles leave their sums in a workspace, which a
// second launch adds in order. No atomics: results are the same bit for bit from run to run.
#include <limits>

#include "box_iou/box_iou_cuda.h"
#include "common/box_coding.h"
#include "common/cuda/device.cuh"

namespace structops::cuda {
namespace {

#include "box_iou/box_iou_pair.h"

constexpr int kThreads = 256, kRowsPerThread = 16;
constexpr int kFewestLanes = 8;  // columns side by side, at least; then a block has 32 rows side by side
constexpr int kMostRows = kThreads / kFewestLanes * kRowsPerThread;
constexpr int kColumns = 128, kRows = 64;  // of a backward tile; a thread a column
constexpr int kWarps = kColumns / 32;
constexpr int64_t kMostTiles = std::numeric_limits<int>::max();

template <class T>
__device__ __forceinline__ Side<T> side_at(BoxFormat format, const T* boxes, const T* angles, int64_t i) {
  const T box[4] = {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]};
  return side_of(format, box, angles != nullptr ? angles[i] : T(0));
}

template <class T>
__device__ __forceinline__ void store_gradient(const BoxIouParams& p, const T* boxes, int64_t i,
                                               const SideGradient<T>& sum, T* grad) {
  const T box[4] = {__ldg(boxes + 4 * i), __ldg(boxes + 4 * i + 1), __ldg(boxes + 4 * i + 2), __ldg(boxes + 4 * i + 3)};
  T out[4];
  gradient_of_box(p.kind, p.format, box, sum, out);
#pragma unroll
  for (int c = 0; c < 4; ++c) grad[4 * i + c] = out[c];
}

// Over `lanes` neighbouring lanes, a power of 2; every one of them gets the sum.
template <class T>
__device__ __forceinline__ T sum_of_lanes(T v, int lanes = 32) {
  for (int o = lanes / 2; o > 0; o /= 2) v += __shfl_xor_sync(kFullWarp, v, o);
  return v;
}
template <class T>
__device__ __forceinline__ SideGradient<T> sum_of_lanes(const SideGradient<T>& g, int lanes, bool with_angle) {
  return {sum_of_lanes(g.x1, lanes), sum_of_lanes(g.y1, lanes),   sum_of_lanes(g.x2, lanes),
          sum_of_lanes(g.y2, lanes), sum_of_lanes(g.area, lanes), with_angle ? sum_of_lanes(g.angle, lanes) : T(0)};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    box_ratios_kernel(const T* __restrict__ boxes, int64_t n, T* __restrict__ ratios) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const T* b = boxes + 4 * i;
  ratios[i] = (b[2] - b[0]) / (b[3] - b[1]);
}

// lanes: columns of a block, a power of 2; its threads make kThreads / lanes rows of them.
template <int kKind, class T>
__global__ void __launch_bounds__(kThreads)
    box_iou_kernel(const BoxIouParams p, const BoxSets<T> sets, T* __restrict__ out, int lanes, int row_tiles,
                   int column_tiles) {
  __shared__ Side<T> rows[kMostRows];
  const int groups = kThreads / lanes, tile_rows = groups * kRowsPerThread;
  const int64_t tile = blockIdx.x, batch = tile / column_tiles / row_tiles;
  const int64_t row = tile / column_tiles % row_tiles * tile_rows;
  const int64_t column = tile % column_tiles * lanes + int(threadIdx.x) % lanes;
  const int count = int(p.rows - row < tile_rows ? p.rows - row : tile_rows);
  const int64_t first = batch * p.rows + row;
  for (int r = threadIdx.x; r < count; r += kThreads) rows[r] = side_at(p.format, sets.boxes1, sets.angles1, first + r);
  __syncthreads();
  if (column >= p.columns) return;
  const Side<T> mine = side_at(p.format, sets.boxes2, sets.angles2, batch * p.columns + column);
  const T eps = static_cast<T>(p.eps);
  for (int r = int(threadIdx.x) / lanes; r < count; r += groups)
    out[(first + r) * p.columns + column] = pair_value<BoxIouKind(kKind), T, T>(rows[r], mine, eps);
}

template <int kKind, class T>
__global__ void __launch_bounds__(kThreads)
    box_iou_rows_kernel(const BoxIouParams p, const BoxSets<T> sets, T* __restrict__ out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.rows) return;
  const Side<T> a = side_at(p.format, sets.boxes1, sets.angles1, i);
  const Side<T> b = side_at(p.format, sets.boxes2, sets.angles2, i);
  out[i] = pair_value<BoxIouKind(kKind), T, T>(a, b, static_cast<T>(p.eps));
}

// partial1 [column tiles, 6, B * N], partial2 [row tiles, 6, B * M]: the tiles' sums, field by field.
template <int kKind, class T>
__global__ void __launch_bounds__(kColumns)
    box_iou_backward_kernel(const BoxIouParams p, const T* __restrict__ grad, const BoxSets<T> sets,
                            T* __restrict__ partial1, T* __restrict__ partial2, int row_tiles, int column_tiles) {
  __shared__ Side<T> rows[kRows];
  __shared__ SideGradient<T> row_sums[kWarps][kRows];
  const int thread = threadIdx.x, lane = thread % 32;
  const int64_t tile = blockIdx.x, batch = tile / column_tiles / row_tiles;
  const int64_t row_tile = tile / column_tiles % row_tiles, column_tile = tile % column_tiles;
  const int64_t row = row_tile * kRows, column = column_tile * kColumns + thread;
  const int count = int(p.rows - row < kRows ? p.rows - row : kRows);
  const int64_t first = batch * p.rows + row, at = batch * p.columns + column;
  if (thread < count) rows[thread] = side_at(p.format, sets.boxes1, sets.angles1, first + thread);
  __syncthreads();
  const bool inside = column < p.columns;
  const Side<T> mine = inside ? side_at(p.format, sets.boxes2, sets.angles2, at) : Side<T>{};
  const T eps = static_cast<T>(p.eps);
  SideGradient<T> sum{};
  for (int r = 0; r < count; ++r) {
    SideGradient<T> theirs{};
    if (inside)
      pair_gradient<BoxIouKind(kKind), T, T>(rows[r], mine, grad[(first + r) * p.columns + column], eps, theirs, sum);
    theirs = sum_of_lanes(theirs, 32, BoxIouKind(kKind) == BoxIouKind::complete);
    if (lane == 0) row_sums[thread / 32][r] = theirs;
  }
  if (inside) {
    const int64_t boxes = p.batch * p.columns;
    T* to = partial2 + row_tile * kGradientFields * boxes + at;
    to[0] = sum.x1, to[boxes] = sum.y1, to[2 * boxes] = sum.x2, to[3 * boxes] = sum.y2;
    to[4 * boxes] = sum.area, to[5 * boxes] = sum.angle;
  }
  __syncthreads();
  if (thread < count) {
    SideGradient<T> total = row_sums[0][thread];
    for (int warp = 1; warp < kWarps; ++warp) {
      const SideGradient<T> more = row_sums[warp][thread];
      total.x1 += more.x1, total.y1 += more.y1, total.x2 += more.x2, total.y2 += more.y2;
      total.area += more.area, total.angle += more.angle;
    }
    const int64_t boxes = p.batch * p.rows;
    T* to = partial1 + column_tile * kGradientFields * boxes + first + thread;
    to[0] = total.x1, to[boxes] = total.y1, to[2 * boxes] = total.x2, to[3 * boxes] = total.y2;
    to[4 * boxes] = total.area, to[5 * boxes] = total.angle;
  }
}
static_assert(kRows <= kColumns, "a thread finishes a row");

// partial [tiles, 6, boxes] to grad [boxes, 4]. lanes share the tiles of a box: few boxes can have thousands of tiles.
template <class T>
__global__ void __launch_bounds__(kThreads)
    box_iou_finish_kernel(const BoxIouParams p, const T* __restrict__ boxes, int64_t count,
                          const T* __restrict__ partial, int tiles, int lanes, T* __restrict__ grad) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / lanes;
  const int lane = int(threadIdx.x) % lanes;
  SideGradient<T> sum{};
  if (i < count) {
    for (int tile = lane; tile < tiles; tile += lanes) {
      const T* from = partial + int64_t(tile) * kGradientFields * count + i;
      sum.x1 += from[0], sum.y1 += from[count], sum.x2 += from[2 * count], sum.y2 += from[3 * count];
      sum.area += from[4 * count], sum.angle += from[5 * count];
    }
  }
  sum = sum_of_lanes(sum, lanes, p.kind == BoxIouKind::complete);
  if (i < count && lane == 0) store_gradient(p, boxes, i, sum, grad);
}

template <int kKind, class T>
__global__ void __launch_bounds__(kThreads)
    box_iou_rows_backward_kernel(const BoxIouParams p, const T* __restrict__ grad, const BoxSets<T> sets,
                                 T* __restrict__ grad1, T* __restrict__ grad2) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.rows) return;
  const Side<T> a = side_at(p.format, sets.boxes1, sets.angles1, i);
  const Side<T> b = side_at(p.format, sets.boxes2, sets.angles2, i);
  SideGradient<T> to_a{}, to_b{};
  pair_gradient<BoxIouKind(kKind), T, T>(a, b, grad[i], static_cast<T>(p.eps), to_a, to_b);
  // Read again rather than kept: kept, the boxes cost 12 registers and a spill.
  store_gradient(p, opaque(sets.boxes1), i, to_a, grad1);
  store_gradient(p, opaque(sets.boxes2), i, to_b, grad2);
}

template <class T>
cudaError_t finish(const BoxIouParams& p, const T* boxes, int64_t count, const T* partial, int64_t tiles, T* grad,
                   cudaStream_t stream) {
  const int lanes = tiles > 32 ? 32 : 1;
  const int64_t blocks = ceil_div<int64_t>(count * lanes, kThreads);
  return launch(box_iou_finish_kernel<T>, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, p, boxes, count, partial,
                int(tiles), lanes, grad);
}

}  // namespace

template <class T>
cudaError_t box_ratios(const T* boxes, int64_t n, T* ratios, cudaStream_t stream) {
  return launch(box_ratios_kernel<T>, dim3(unsigned(ceil_div<int64_t>(n, kThreads))), dim3(kThreads), 0, stream, boxes,
                n, ratios);
}

template <class T>
cudaError_t box_iou(const BoxIouParams& p, const BoxSets<T>& sets, T* output, cudaStream_t stream) {
  int lanes = kThreads;
  while (lanes > kFewestLanes && lanes / 2 >= p.columns) lanes /= 2;
  const int64_t row_tiles = ceil_div<int64_t>(p.rows, kThreads / lanes * kRowsPerThread);
  const int64_t column_tiles = ceil_div<int64_t>(p.columns, lanes), tiles = p.batch * row_tiles * column_tiles;
  if (tiles > kMostTiles) return cudaErrorInvalidValue;
  return with_kind(p.kind, [&]<BoxIouKind kKind>() {
    return launch(box_iou_kernel<int(kKind), T>, dim3(unsigned(tiles)), dim3(kThreads), 0, stream, p, sets, output,
                  lanes, int(row_tiles), int(column_tiles));
  });
}

template <class T>
size_t box_iou_backward_workspace(const BoxIouParams& p) {
  const int64_t row_tiles = ceil_div<int64_t>(p.rows, kRows), column_tiles = ceil_div<int64_t>(p.columns, kColumns);
  return sizeof(T) * size_t(kGradientFields * p.batch * (column_tiles * p.rows + row_tiles * p.columns));
}

template <class T>
cudaError_t box_iou_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                             void* workspace, cudaStream_t stream) {
  const int64_t row_tiles = ceil_div<int64_t>(p.rows, kRows), column_tiles = ceil_div<int64_t>(p.columns, kColumns);
  const int64_t tiles = p.batch * row_tiles * column_tiles, count1 = p.batch * p.rows, count2 = p.batch * p.columns;
  if (tiles > kMostTiles) return cudaErrorInvalidValue;
  T* partial1 = static_cast<T*>(workspace);
  T* partial2 = partial1 + column_tiles * kGradientFields * count1;
  cudaError_t error = with_kind(p.kind, [&]<BoxIouKind kKind>() {
    return launch(box_iou_backward_kernel<int(kKind), T>, dim3(unsigned(tiles)), dim3(kColumns), 0, stream, p, grad,
                  sets, partial1, partial2, int(row_tiles), int(column_tiles));
  });
  if (error == cudaSuccess) error = finish(p, sets.boxes1, count1, partial1, column_tiles, grad1, stream);
  if (error == cudaSuccess) error = finish(p, sets.boxes2, count2, partial2, row_tiles, grad2, stream);
  return error;
}

template <class T>
cudaError_t box_iou_rows(const BoxIouParams& p, const BoxSets<T>& sets, T* output, cudaStream_t stream) {
  const dim3 grid(unsigned(ceil_div<int64_t>(p.rows, kThreads)));
  return with_kind(p.kind, [&]<BoxIouKind kKind>() {
    return launch(box_iou_rows_kernel<int(kKind), T>, grid, dim3(kThreads), 0, stream, p, sets, output);
  });
}

template <class T>
cudaError_t box_iou_rows_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                                  cudaStream_t stream) {
  const dim3 grid(unsigned(ceil_div<int64_t>(p.rows, kThreads)));
  return with_kind(p.kind, [&]<BoxIouKind kKind>() {
    return launch(box_iou_rows_backward_kernel<int(kKind), T>, grid, dim3(kThreads), 0, stream, p, grad, sets, grad1,
                  grad2);
  });
}

#define INSTANTIATE(T)                                                                                      \
  template cudaError_t box_ratios<T>(const T*, int64_t, T*, cudaStream_t);                                  \
  template cudaError_t box_iou<T>(const BoxIouParams&, const BoxSets<T>&, T*, cudaStream_t);                \
  template size_t box_iou_backward_workspace<T>(const BoxIouParams&);                                       \
  template cudaError_t box_iou_backward<T>(const BoxIouParams&, const T*, const BoxSets<T>&, T*, T*, void*, \
                                           cudaStream_t);                                                   \
  template cudaError_t box_iou_rows<T>(const BoxIouParams&, const BoxSets<T>&, T*, cudaStream_t);           \
  template cudaError_t box_iou_rows_backward<T>(const BoxIouParams&, const T*, const BoxSets<T>&, T*, T*, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
