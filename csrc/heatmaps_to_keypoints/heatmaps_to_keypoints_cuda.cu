// Keypoints from heatmaps on the GPU: a block for each map, whose warps look into the cells that can hold the best
// pixel.
//
// Cells and their bounds are those of the CPU kernel. A first pass takes the cell with the largest bound, for a value
// to measure the others by; a second computes every cell whose bound reaches it, a pixel a lane.
#include <limits>

#include "common/cuda/device.cuh"
#include "common/host_device.h"
#include "heatmaps_to_keypoints/heatmaps_to_keypoints_cuda.h"

namespace structops::cuda {
namespace {

#include "heatmaps_to_keypoints/keypoint_maths.h"

constexpr int kThreads = 128, kWarps = kThreads / 32;

template <class S, class T>
struct Cells {
  const S* map;
  BicubicAxis<T> x, y;
  const int *column_begin, *row_begin;  // of each cell, in pixels of the result

  __device__ __forceinline__ T pixel(int row, int column) const {
    row = min(max(row, 0), y.extent - 1);
    column = min(max(column, 0), x.extent - 1);
    return up(map[row * x.extent + column]);
  }

  __device__ __forceinline__ bool empty(int cy, int cx) const {
    return row_begin[cy] == row_begin[cy + 1] || column_begin[cx] == column_begin[cx + 1];
  }

  // NaN where a pixel is not finite.
  __device__ __forceinline__ T bound(int cy, int cx) const {
    T least = pixel(cy - 2, cx - 2), most = least, not_finite = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const T v = pixel(cy - 2 + i / 4, cx - 2 + i % 4);
      least = v < least ? v : least;
      most = v > most ? v : most;
      not_finite += v - v;
    }
    return bicubic_bound(least, most, std::numeric_limits<T>::epsilon()) + not_finite;
  }

  // Pixels of a cell, every step-th.
  __device__ __forceinline__ void look_into(int cy, int cx, int start, int step, BestPixel<T>& best) const {
    const int left = column_begin[cx], columns = column_begin[cx + 1] - left;
    const int top = row_begin[cy], count = columns * (row_begin[cy + 1] - top);
    for (int i = start; i < count; i += step) {
      const int row = top + i / columns, column = left + i % columns;
      T wx[4], wy[4], line[4];
      x.weights(column, wx);
      y.weights(row, wy);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int r = cy - 2 + j, c = cx - 2;
        line[j] = cubic_sum(pixel(r, c), pixel(r, c + 1), pixel(r, c + 2), pixel(r, c + 3), wx[0], wx[1], wx[2], wx[3]);
      }
      best.offer(cubic_sum(line[0], line[1], line[2], line[3], wy[0], wy[1], wy[2], wy[3]), row * x.size + column);
    }
  }
};

// The best of a block, in every thread. Called by all of them.
template <class T>
__device__ __forceinline__ BestPixel<T> best_of_block(BestPixel<T> mine) {
  __shared__ T values[kWarps];
  __shared__ int places[kWarps];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const T value = __shfl_xor_sync(kFullWarp, mine.value, step);
    const int at = __shfl_xor_sync(kFullWarp, mine.at, step);
    mine.offer(value, at);
  }
  __syncthreads();  // those of the call before have been read
  if (threadIdx.x % 32 == 0) {
    values[threadIdx.x / 32] = mine.value;
    places[threadIdx.x / 32] = mine.at;
  }
  __syncthreads();
  mine = {values[0], places[0]};
#pragma unroll
  for (int w = 1; w < kWarps; ++w) mine.offer(values[w], places[w]);
  return mine;
}

template <class S, class T>
__global__ void __launch_bounds__(kThreads)
    heatmaps_to_keypoints_kernel(const HeatmapSizes sizes, const S* __restrict__ maps, const T* __restrict__ rois,
                                 T* __restrict__ keypoints, T* __restrict__ scores) {
  const int thread = int(threadIdx.x);
  const int64_t point = blockIdx.x;
  const KeypointRoi<T> roi(rois + point / sizes.points * 4);
  if (!roi.finite) {
    if (thread == 0) write_keypoint(roi, BestPixel<T>{0, 0}, keypoints + 3 * point, scores + point);
    return;
  }
  const BicubicAxis<T> x(sizes.width, roi.width), y(sizes.height, roi.height);
  int* column_begin = dynamic_smem<int>();          // [width + 2]
  int* row_begin = column_begin + sizes.width + 2;  // [height + 2]
  for (int c = thread; c < sizes.width + 2; c += kThreads) column_begin[c] = x.first(c - 1);
  for (int c = thread; c < sizes.height + 2; c += kThreads) row_begin[c] = y.first(c - 1);
  __syncthreads();

  const Cells<S, T> cells{maps + point * sizes.height * sizes.width, x, y, column_begin, row_begin};
  const int across = sizes.width + 1, count = across * (sizes.height + 1);
  const T lowest = -std::numeric_limits<T>::infinity();
  const int nowhere = std::numeric_limits<int>::max();
  BestPixel<T> likely{lowest, nowhere};
  for (int i = thread; i < count; i += kThreads)
    if (!cells.empty(i / across, i % across)) likely.offer(cells.bound(i / across, i % across), i);
  likely = best_of_block(likely);
  BestPixel<T> best{lowest, nowhere};
  cells.look_into(likely.at / across, likely.at % across, thread, kThreads, best);
  best = best_of_block(best);

  const int lane = thread % 32;
  for (int first = thread - lane; first < count; first += kThreads) {  // the same in a warp
    const int mine = first + lane;
    const bool can_win = mine < count && !cells.empty(mine / across, mine % across) &&
                         !(cells.bound(mine / across, mine % across) < best.value);
    for (unsigned found = __ballot_sync(kFullWarp, can_win); found != 0; found &= found - 1) {
      const int cell = first + __ffs(int(found)) - 1;
      cells.look_into(cell / across, cell % across, lane, 32, best);
    }
  }
  best = best_of_block(best);
  if (thread == 0) write_keypoint(roi, best, keypoints + 3 * point, scores + point);
}

}  // namespace

template <class S, class T>
cudaError_t heatmaps_to_keypoints(const HeatmapSizes& sizes, const S* maps, const T* rois, T* keypoints, T* scores,
                                  cudaStream_t stream) {
  const size_t shared_bytes = sizeof(int) * size_t(sizes.width + sizes.height + 4);
  return launch(heatmaps_to_keypoints_kernel<S, T>, dim3(unsigned(sizes.rois * sizes.points)), dim3(kThreads),
                shared_bytes, stream, sizes, maps, rois, keypoints, scores);
}

#define INSTANTIATE(S, T) \
  template cudaError_t heatmaps_to_keypoints<S, T>(const HeatmapSizes&, const S*, const T*, T*, T*, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
