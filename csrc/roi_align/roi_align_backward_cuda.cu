// RoI Align backward on the GPU: a gather, so every element of the gradient is written once, zeros
// included, with no atomics and no clearing pass, and is the same from run to run.
//
// A block owns a tile of pixels of one image and a run of channels. It walks the RoIs in order, and
// keeps those whose pixels meet the tile (one comparison per RoI and tile: 1000 RoIs are one window of
// the walk, some 2 us of latency a block, hidden by the blocks beside it). For up to kBatch of them at
// a time it computes the weights of the tile's rows and columns in double into shared memory, then
// every thread adds to the pixels it owns, in registers.
//
// Cost for 1000 RoIs x 256 x 7x7 in bfloat16: a RoI of 17x17 pixels is 90 segments of four pixels,
// each 4-5 vector loads of the gradient and about 150 instructions a warp: 13M warp instructions, 15 us
// of an H200's issue slots, against 27 us to write the result. RoIs that pile up on one object are
// worse: their tiles are then a serial chain (1000 on one spot: some 0.4 ms).
#include <limits>
#include <type_traits>

#include "common/cuda/device.cuh"
#include "common/cuda/ptx.cuh"
#include "common/cuda/roi_tiles.cuh"
#include "roi_align/roi_align_bounds.cuh"
#include "roi_align/roi_align_cuda.h"
#include "roi_align/roi_taps.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBatch = 16;     // RoIs whose weights are in shared memory together
constexpr int kBinChunk = 32;  // bins per axis, likewise
constexpr size_t kWeightBytes =
    24 * 1024;  // what the batch is cut down to; leaves room for the blocks that registers allow
constexpr int kWindow = kThreads * kRoiScan;  // RoIs looked at in one step of the walk
constexpr int kPixels = 4;                    // of one row, per thread, channels_last
template <class T>
constexpr int kPlanes = sizeof(T) == 8 ? 8 : 16;  // per thread, contiguous
// Blocks on a multiprocessor. The sums stay in registers while the weights are computed in double:
// three blocks (80 registers a thread) hold up to 16 floats of sums, two (128) hold 32.
template <class T, int S, int V, bool kChannelsLast>
constexpr int kBlocks = kChannelsLast && S * V * sizeof(acc_t<T>) <= 64 && sizeof(T) < 8 ? 3 : 2;

struct BackwardArgs {
  RoiAlignParams p;
  Rois rois;
  const int4* bounds;
  const int* image;
  int first_image;                                 // image[k] counts from here
  int64_t stride_k, stride_c, stride_h, stride_w;  // of grad, in elements
  // A block's threads: lane_bits channel lanes, then segments_x segments of a row, then rows.
  int lane_bits, segments_x_bits;
  int tile_rows, tile_columns, tiles_y, tiles_x;
  int batch, chunk_y, chunk_x;  // RoIs and bins in one fill of the weights
};

__global__ void __launch_bounds__(kBoundsThreads)
    roi_bounds_kernel(const RoiAlignParams p, const Rois rois, int4* __restrict__ bounds, int* __restrict__ image) {
  const int64_t k = int64_t(blockIdx.x) * kBoundsThreads + threadIdx.x;
  if (k >= p.rois) return;
  int4 b;
  image[k] = roi_bounds(p, rois, static_cast<int>(k), b);
  bounds[k] = b;
}

// Weights of the tile's lines, for a batch of RoIs and a chunk of bins along each axis.
template <class A>
struct Weights {
  A *rows, *columns;             // [batch, chunk_y, tile_rows], [batch, chunk_x, tile_columns]
  int2 *row_bins, *column_bins;  // [batch, tile_rows], [batch, tile_columns / S]: first and last bin + 1, in the chunk

  static size_t bytes(const BackwardArgs& a, int batch) {
    return size_t(batch) * (size_t(a.tile_rows) * a.chunk_y + size_t(a.tile_columns) * a.chunk_x) * sizeof(A) +
           size_t(batch) * (a.tile_rows + a.tile_columns) * sizeof(int2);
  }
  __device__ __forceinline__ explicit Weights(const BackwardArgs& a) {
    rows = dynamic_smem<A>();
    columns = rows + a.batch * a.tile_rows * a.chunk_y;
    row_bins = reinterpret_cast<int2*>(columns + a.batch * a.tile_columns * a.chunk_x);
    column_bins = row_bins + a.batch * a.tile_rows;
  }

  // Called by the whole block, which has synchronised; synchronises at the end.
  template <int S>
  __device__ __forceinline__ void fill(const BackwardArgs& a, const Tile& t, const int* list, int n, int bin_y,
                                       int bin_x) const {
    const int all_rows = n * a.tile_rows * a.chunk_y, all_columns = n * a.tile_columns * a.chunk_x;
    for (int i = threadIdx.x; i < all_rows; i += kThreads) rows[i] = A(0);
    for (int i = threadIdx.x; i < all_columns; i += kThreads) columns[i] = A(0);
    __syncthreads();
    const int chunk = a.chunk_y + a.chunk_x;
    for (int i = threadIdx.x; i < n * chunk; i += kThreads) {
      const int r = i / chunk, q = i % chunk;
      const bool vertical = q < a.chunk_y;
      const int bin = vertical ? q : q - a.chunk_y;  // in the chunk
      const int p = bin + (vertical ? bin_y : bin_x);
      if (p >= (vertical ? a.p.pooled_height : a.p.pooled_width)) continue;
      const RoiAxis axis = roi_axis(a.rois, list[r], vertical, a.p);
      const int lines = vertical ? a.tile_rows : a.tile_columns, origin = vertical ? t.y0 : t.x0;
      A* out = vertical ? rows + (r * a.chunk_y + bin) * lines : columns + (r * a.chunk_x + bin) * lines;
      int64_t first, last;
      axis.inside_range(p, first, last);
      samples_between(axis, p, origin - 1.0, origin + static_cast<double>(lines), first, last);
      for_each_tap(axis, p, first, last, [&](int pixel, double weight) {
        const int line = pixel - origin;
        if (line >= 0 && line < lines) out[line] = static_cast<A>(weight);
      });
    }
    __syncthreads();
    const int segments = a.tile_columns / S, lines = a.tile_rows + segments;
    for (int i = threadIdx.x; i < n * lines; i += kThreads) {
      const int r = i / lines, q = i % lines;
      const bool vertical = q < a.tile_rows;
      const int line = vertical ? q : q - a.tile_rows, each = vertical ? 1 : S;
      const int bins = vertical ? a.chunk_y : a.chunk_x, stride = vertical ? a.tile_rows : a.tile_columns;
      const A* w = (vertical ? rows : columns) + r * bins * stride + line * each;
      int2 range{bins, 0};
      for (int b = 0; b < bins; ++b) {
        bool used = false;
        for (int s = 0; s < each; ++s) used |= w[b * stride + s] != A(0);
        if (used) {
          range.x = min(range.x, b);
          range.y = b + 1;
        }
      }
      (vertical ? row_bins + r * a.tile_rows : column_bins + r * segments)[line] = range;
    }
    __syncthreads();
  }
};

// A thread owns S pixels of a row by V channels. Packed: grad [K, PH, PW, C] and grad_input [N, H, W, C],
// V channels one access. Otherwise grad [K, C, PH, PW], grad_input [N, C, H, W], and lanes run along pixels.
template <class T, int S, int V, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, kBlocks<T, S, V, kChannelsLast>)
    roi_align_backward_kernel(const BackwardArgs a, const T* __restrict__ grad, T* __restrict__ grad_input) {
  using A = acc_t<T>;
  __shared__ int list[kWindow];
  __shared__ int warp_counts[kWarps];
  const Weights<A> weights(a);
  Tile t;
  t.image = blockIdx.x / (a.tiles_x * a.tiles_y);
  t.y0 = static_cast<int>(blockIdx.x) / a.tiles_x % a.tiles_y * a.tile_rows;
  t.x0 = static_cast<int>(blockIdx.x) % a.tiles_x * a.tile_columns;
  t.rows = min(a.tile_rows, static_cast<int>(a.p.height) - t.y0);
  t.columns = min(a.tile_columns, static_cast<int>(a.p.width) - t.x0);

  const int lane = threadIdx.x & ((1 << a.lane_bits) - 1), rest = threadIdx.x >> a.lane_bits;
  const int segment = rest & ((1 << a.segments_x_bits) - 1), row = rest >> a.segments_x_bits;
  const int64_t channel = (int64_t(blockIdx.y) << a.lane_bits) * V + lane * V;
  const int planes = static_cast<int>(a.p.channels - channel < V ? a.p.channels - channel : V);
  const bool active = planes > 0 && row < t.rows && segment * S < t.columns;

  A sum[S][V];
#pragma unroll
  for (int s = 0; s < S; ++s)
#pragma unroll
    for (int v = 0; v < V; ++v) sum[s][v] = A(0);

  Tile numbered = t;
  numbered.image += a.first_image;
  for (int64_t begin = 0; begin < a.p.rois; begin += kWindow) {
    const int found = collect_rois<kThreads>(a.bounds, a.image, a.p.rois, numbered, begin, list, warp_counts);
    for (int done = 0; done < found; done += a.batch) {
      const int n = min(a.batch, found - done);
      for (int bin_y = 0; bin_y < a.p.pooled_height; bin_y += a.chunk_y) {
        for (int bin_x = 0; bin_x < a.p.pooled_width; bin_x += a.chunk_x) {
          weights.template fill<S>(a, t, list + done, n, bin_y, bin_x);
          for (int r = 0; active && r < n; ++r) {
            const int2 ys = weights.row_bins[r * a.tile_rows + row];
            const int2 xs = weights.column_bins[(r << a.segments_x_bits) + segment];
            if (ys.x >= ys.y) continue;
            const T* crop = grad + list[done + r] * a.stride_k + channel * a.stride_c;
            const A* row_weights = weights.rows + r * a.chunk_y * a.tile_rows + row;
            const A* column_weights = weights.columns + r * a.chunk_x * a.tile_columns + segment * S;
            for (int pw = xs.x; pw < xs.y; ++pw) {
              // Down the column of bins first: the S pixels then share what was loaded.
              A line[V];
#pragma unroll
              for (int v = 0; v < V; ++v) line[v] = A(0);
              for (int ph = ys.x; ph < ys.y; ++ph) {
                const A w = row_weights[ph * a.tile_rows];
                const T* at = crop + (bin_y + ph) * a.stride_h + (bin_x + pw) * a.stride_w;
                if constexpr (kChannelsLast) {
                  const Pack<T, V> pack = load_pack<T, V>(at);
#pragma unroll
                  for (int v = 0; v < V; ++v) line[v] = fused(w, up(pack, v), line[v]);
                } else {
#pragma unroll
                  for (int v = 0; v < V; ++v)
                    if (v < planes) line[v] = fused(w, up(__ldg(at + v * a.stride_c)), line[v]);
                }
              }
#pragma unroll
              for (int s = 0; s < S; ++s) {
                const A w = column_weights[pw * a.tile_columns + s];
                // A pixel outside the bin must not see its gradient, which may be infinite.
                if (w != A(0)) {
#pragma unroll
                  for (int v = 0; v < V; ++v) sum[s][v] = fused(w, line[v], sum[s][v]);
                }
              }
            }
          }
          __syncthreads();  // before the weights and the list are overwritten
        }
      }
    }
  }
  if (!active) return;
  const int64_t y = t.y0 + row;
#pragma unroll
  for (int s = 0; s < S; ++s) {
    const int64_t x = t.x0 + segment * S + s;
    if (x >= a.p.width) break;
    if constexpr (kChannelsLast) {
      Pack<T, V> pack;
#pragma unroll
      for (int v = 0; v < V; ++v) pack.value[v] = down<T>(sum[s][v]);
      T* to = grad_input + ((t.image * a.p.height + y) * a.p.width + x) * a.p.channels + channel;
      if constexpr (std::is_same_v<T, float>)
        *reinterpret_cast<Pack<T, V>*>(to) = pack;  // four stores: one would take four registers in a row, and spills
      else
        ptx::store_pack(to, pack);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < planes)
          grad_input[((t.image * a.p.channels + channel + v) * a.p.height + y) * a.p.width + x] = down<T>(sum[s][v]);
    }
  }
}

template <class T, int S, int V, bool kChannelsLast>
cudaError_t run(BackwardArgs a, const T* grad, T* grad_input, cudaStream_t stream) {
  a.lane_bits = 0;
  if (kChannelsLast)
    while (a.lane_bits < 5 && (V << a.lane_bits) < a.p.channels) ++a.lane_bits;
  // The squarest tile that the block's threads make.
  const int segments = kThreads >> a.lane_bits;
  a.segments_x_bits = 0;
  while ((S << a.segments_x_bits) < segments >> a.segments_x_bits) ++a.segments_x_bits;
  a.tile_columns = S << a.segments_x_bits;
  a.tile_rows = segments >> a.segments_x_bits;
  a.tiles_x = int(ceil_div<int64_t>(a.p.width, a.tile_columns));
  a.tiles_y = int(ceil_div<int64_t>(a.p.height, a.tile_rows));
  a.chunk_y = int(a.p.pooled_height < kBinChunk ? a.p.pooled_height : kBinChunk);
  a.chunk_x = int(a.p.pooled_width < kBinChunk ? a.p.pooled_width : kBinChunk);
  a.batch = kBatch;
  while (a.batch > 1 && Weights<acc_t<T>>::bytes(a, a.batch) > kWeightBytes) a.batch /= 2;
  const int64_t tiles = a.p.batch * a.tiles_x * a.tiles_y;
  const int64_t channel_blocks = ceil_div<int64_t>(a.p.channels, int64_t(V) << a.lane_bits);
  if (tiles > std::numeric_limits<int>::max() || channel_blocks > 65535) return cudaErrorInvalidValue;
  return launch(roi_align_backward_kernel<T, S, V, kChannelsLast>, dim3(unsigned(tiles), unsigned(channel_blocks)),
                dim3(kThreads), Weights<acc_t<T>>::bytes(a, a.batch), stream, a, grad, grad_input);
}

}  // namespace

size_t roi_align_backward_workspace(const RoiAlignParams& p) { return RoiBounds::bytes(p.rois); }

template <class T>
cudaError_t roi_align_gather(const RoiAlignParams& p, const T* grad, const int64_t strides[4], const void* rois,
                             bool rois_are_double, T* grad_input, bool channels_last, const void* workspace,
                             int64_t first_image, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  if (p.rois > kInt || p.height > kInt / 4 || p.width > kInt / 4 || p.batch > kInt || p.pooled_height > kInt / 2 ||
      p.pooled_width > kInt / 2)
    return cudaErrorInvalidValue;
  const RoiBounds w(const_cast<void*>(workspace), p.rois);
  const BackwardArgs a{.p = p,
                       .rois = {rois, rois_are_double},
                       .bounds = w.pixels,
                       .image = w.image,
                       .first_image = int(first_image),
                       .stride_k = strides[0],
                       .stride_c = strides[1],
                       .stride_h = strides[2],
                       .stride_w = strides[3]};
  if (!channels_last) return run<T, 1, kPlanes<T>, false>(a, grad, grad_input, stream);
  constexpr int V = kPack<T>;
  const bool packed = p.channels % V == 0 && strides[0] % V == 0 && strides[2] % V == 0 && strides[3] % V == 0 &&
                      reinterpret_cast<uintptr_t>(grad) % 16 == 0 && reinterpret_cast<uintptr_t>(grad_input) % 16 == 0;
  return packed ? run<T, kPixels, V, true>(a, grad, grad_input, stream)
                : run<T, kPixels, 1, true>(a, grad, grad_input, stream);
}

template <class T>
cudaError_t roi_align_backward(const RoiAlignParams& p, const T* grad, const int64_t strides[4], const void* rois,
                               bool rois_are_double, T* grad_input, bool channels_last, void* workspace,
                               cudaStream_t stream) {
  if (p.rois > std::numeric_limits<int>::max()) return cudaErrorInvalidValue;
  const RoiBounds w(workspace, p.rois);
  const cudaError_t error = launch(roi_bounds_kernel, dim3(unsigned(ceil_div<int64_t>(p.rois, kBoundsThreads))),
                                   dim3(kBoundsThreads), 0, stream, p, Rois{rois, rois_are_double}, w.pixels, w.image);
  if (error != cudaSuccess) return error;
  return roi_align_gather(p, grad, strides, rois, rois_are_double, grad_input, channels_last, workspace, 0, stream);
}

#define INSTANTIATE(T)                                                                                               \
  template cudaError_t roi_align_gather<T>(const RoiAlignParams&, const T*, const int64_t*, const void*, bool, T*,   \
                                           bool, const void*, int64_t, cudaStream_t);                                \
  template cudaError_t roi_align_backward<T>(const RoiAlignParams&, const T*, const int64_t*, const void*, bool, T*, \
                                             bool, void*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
