// RoI Align of rotated boxes, backward on the GPU: a gather, so every element of the gradient is written once, zeros
// included, with no atomics and no clearing pass, and is the same from run to run.
//
// A block owns a tile of 8 x 8 pixels of one image and a run of channels. It walks the RoIs in order and keeps those
// whose pixels meet the tile. Of their bins that can reach into it, it takes kPairs at a time: one thread computes the
// weights of one bin on all pixels of the tile, in double in shared memory, then every thread adds to the pixels that
// it owns, in registers, the bins that a bit mask says have a weight there.
#include <limits>

#include "common/cuda/device.cuh"
#include "common/cuda/ptx.cuh"
#include "common/cuda/roi_tiles.cuh"
#include "roi_align_rotated/roi_align_rotated_cuda.h"
#include "roi_align_rotated/rotated_rois.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256, kTile = 8, kPixels = kTile * kTile;
constexpr int kPairs = 64;         // (RoI, bin) whose weights are in shared memory together
constexpr int kRow = kPixels + 1;  // doubles from one pair's weights to the next: lanes meet different banks
constexpr int kBatch = 16;         // RoIs whose bins are enumerated together
constexpr int kWindow = kThreads * kRoiScan;
constexpr size_t kWeightBytes = size_t(kPairs) * kRow * sizeof(double);
// Pixels of a row that a thread owns in channels_last, where they share what was loaded.
constexpr int kSegment = 4;
template <class T>
constexpr int kPlanes = sizeof(T) == 8 ? 8 : 16;  // per thread, contiguous

struct BackwardArgs {
  RoiAlignParams p;
  const RotatedRoi* rois;
  const int4* pixels;
  const int* image;
  int64_t stride_k, stride_c, stride_h, stride_w;  // of grad, in elements
  int tiles_y, tiles_x;
};

// A bin range's size, within int: the launcher has seen to it.
__device__ __forceinline__ int bins_of(const BinRange& r) {
  return r.y1 > r.y0 && r.x1 > r.x0 ? static_cast<int>((r.y1 - r.y0) * (r.x1 - r.x0)) : 0;
}

// The weights of bin (ph, pw) on the pixels of the tile, added to weight [kPixels].
__device__ __forceinline__ void add_weights(const RoiAlignParams& p, const Tile& t, const RotatedRoi& roi, int64_t ph,
                                            int64_t pw, const RoiWindow& local, double* weight) {
  const SampleRange range = roi.samples_in(ph, pw, local);
  const double share = 1.0 / (static_cast<double>(roi.x.samples) * static_cast<double>(roi.y.samples));
  for (int64_t i = range.y0; i < range.y1; ++i) {
    const double along_y = roi.y.at(ph, i);
#pragma unroll 1
    for (int64_t j = range.x0; j < range.x1; ++j) {
      const double along_x = roi.x.at(pw, j);
      const RoiSample y = roi_sample(roi.map_y(along_x, along_y), p.height);
      const RoiSample x = roi_sample(roi.map_x(along_x, along_y), p.width);
      if (!y.inside || !x.inside) continue;
      const int row = static_cast<int>(y.low) - t.y0, column = static_cast<int>(x.low) - t.x0;
#pragma unroll
      for (int tap = 0; tap < 4; ++tap) {
        const int r = row + tap / 2, c = column + tap % 2;
        const double w = (tap / 2 ? y.fraction : 1.0 - y.fraction) * (tap % 2 ? x.fraction : 1.0 - x.fraction) * share;
        if (r >= 0 && r < kTile && c >= 0 && c < kTile) weight[r * kTile + c] += w;
      }
    }
  }
}

// A thread owns S pixels of a row by V channels. Packed: grad [K, PH, PW, C] and grad_input [N, H, W, C], V channels
// one access. Otherwise grad [K, C, PH, PW], grad_input [N, C, H, W], and lanes run along pixels.
template <class T, int S, int V, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2)
    rotated_backward_kernel(const BackwardArgs a, const T* __restrict__ grad, T* __restrict__ grad_input) {
  using A = acc_t<T>;
  constexpr int kSegments = kPixels / S, kLanes = kThreads / kSegments, kWarps = kThreads / 32;
  __shared__ int list[kWindow];
  __shared__ int warp_counts[kWarps];
  __shared__ RoiWindow window;
  __shared__ BinRange ranges[kBatch];
  __shared__ int64_t source[kPairs];         // of a pair's gradient, in elements
  __shared__ unsigned masks[kSegments][2];   // bit q % 32 of word q / 32: pair q has a weight in the segment
  double* weights = dynamic_smem<double>();  // [kPairs, kRow]
  Tile t;
  t.image = blockIdx.x / (a.tiles_x * a.tiles_y);
  t.y0 = static_cast<int>(blockIdx.x) / a.tiles_x % a.tiles_y * kTile;
  t.x0 = static_cast<int>(blockIdx.x) % a.tiles_x * kTile;
  t.rows = min(kTile, static_cast<int>(a.p.height) - t.y0);
  t.columns = min(kTile, static_cast<int>(a.p.width) - t.x0);
  // The samples that touch it; not in registers, of which there are none to spare.
  if (threadIdx.x == 0)
    window = {t.x0 - 1.0, static_cast<double>(t.x0 + t.columns), t.y0 - 1.0, static_cast<double>(t.y0 + t.rows)};

  const int lane = kChannelsLast ? threadIdx.x % kLanes : threadIdx.x / kSegments;
  const int segment = kChannelsLast ? threadIdx.x / kLanes : threadIdx.x % kSegments;
  const int row = segment * S / kTile, column = segment * S % kTile;
  const int64_t channel = (int64_t(blockIdx.y) * kLanes + lane) * V;
  const int planes = static_cast<int>(a.p.channels - channel < V ? a.p.channels - channel : V);
  const bool active = planes > 0 && row < t.rows && column < t.columns;

  A sum[S][V];
#pragma unroll
  for (int s = 0; s < S; ++s)
#pragma unroll
    for (int v = 0; v < V; ++v) sum[s][v] = A(0);

  for (int64_t begin = 0; begin < a.p.rois; begin += kWindow) {
    const int found = collect_rois<kThreads>(a.pixels, a.image, a.p.rois, t, begin, list, warp_counts);
    for (int done = 0; done < found; done += kBatch) {
      const int n = min(kBatch, found - done);
      if (threadIdx.x < n) {
        const RotatedRoi roi = a.rois[list[done + threadIdx.x]];
        ranges[threadIdx.x] = roi.bins_in(a.p, roi.local(window));
      }
      __syncthreads();
      int total = 0;
      for (int r = 0; r < n; ++r) total += bins_of(ranges[r]);
      for (int first = 0; first < total; first += kPairs) {
        for (int i = threadIdx.x; i < kPairs * kRow; i += kThreads) weights[i] = 0.0;
        __syncthreads();
        if (threadIdx.x < kPairs && first + threadIdx.x < total) {
          int q = first + threadIdx.x, r = 0;
          for (; q >= bins_of(ranges[r]); ++r) q -= bins_of(ranges[r]);
          const int across = static_cast<int>(ranges[r].x1 - ranges[r].x0), k = list[done + r];
          const int64_t ph = ranges[r].y0 + q / across, pw = ranges[r].x0 + q % across;
          source[threadIdx.x] = k * a.stride_k + ph * a.stride_h + pw * a.stride_w;
          const RotatedRoi roi = a.rois[k];
          add_weights(a.p, t, roi, ph, pw, roi.local(window), weights + threadIdx.x * kRow);
        }
        __syncthreads();
        for (int i = threadIdx.x / 32; i < 2 * kSegments; i += kWarps) {
          const double* w = weights + (i % 2 * 32 + threadIdx.x % 32) * kRow + i / 2 * S;
          bool used = false;
#pragma unroll
          for (int s = 0; s < S; ++s) used |= static_cast<A>(w[s]) != A(0);
          const unsigned mask = __ballot_sync(kFullWarp, used);
          if (threadIdx.x % 32 == 0) masks[i / 2][i % 2] = mask;
        }
        __syncthreads();
        for (int word = 0; active && word < 2; ++word) {
          for (unsigned left = masks[segment][word]; left != 0; left &= left - 1) {
            const int q = word * 32 + __ffs(static_cast<int>(left)) - 1;
            const T* at = grad + source[q] + channel * a.stride_c;
            A value[V];
            if constexpr (kChannelsLast) {
              const Pack<T, V> pack = load_pack<T, V>(at);
#pragma unroll
              for (int v = 0; v < V; ++v) value[v] = up(pack, v);
            } else {
#pragma unroll
              for (int v = 0; v < V; ++v) value[v] = v < planes ? up(__ldg(at + v * a.stride_c)) : A(0);
            }
#pragma unroll
            for (int s = 0; s < S; ++s) {
              const A w = static_cast<A>(weights[q * kRow + segment * S + s]);
              // A pixel outside the bin must not see its gradient, which may be infinite.
              if (w != A(0)) {
#pragma unroll
                for (int v = 0; v < V; ++v) sum[s][v] = fused(w, value[v], sum[s][v]);
              }
            }
          }
        }
        __syncthreads();  // before weights and masks are overwritten
      }
      __syncthreads();  // before the ranges and the list are
    }
  }
  if (!active) return;
#pragma unroll
  for (int s = 0; s < S; ++s) {
    if (column + s >= t.columns) break;
    const int64_t y = t.y0 + row, x = t.x0 + column + s;
    if constexpr (kChannelsLast) {
      Pack<T, V> pack;
#pragma unroll
      for (int v = 0; v < V; ++v) pack.value[v] = down<T>(sum[s][v]);
      ptx::store_pack(grad_input + ((t.image * a.p.height + y) * a.p.width + x) * a.p.channels + channel, pack);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < planes)
          grad_input[((t.image * a.p.channels + channel + v) * a.p.height + y) * a.p.width + x] = down<T>(sum[s][v]);
    }
  }
}

template <class T, int S, int V, bool kChannelsLast>
cudaError_t run(const BackwardArgs& a, const T* grad, T* grad_input, cudaStream_t stream) {
  const int64_t tiles = a.p.batch * a.tiles_x * a.tiles_y;
  const int64_t channel_blocks = ceil_div<int64_t>(a.p.channels, int64_t(V) * kThreads * S / kPixels);
  if (tiles > std::numeric_limits<int>::max() || channel_blocks > 65535) return cudaErrorInvalidValue;
  return launch(rotated_backward_kernel<T, S, V, kChannelsLast>, dim3(unsigned(tiles), unsigned(channel_blocks)),
                dim3(kThreads), kWeightBytes, stream, a, grad, grad_input);
}

}  // namespace

template <class T>
cudaError_t roi_align_rotated_backward(const RoiAlignParams& p, bool clockwise, const T* grad, const int64_t strides[4],
                                       const void* rois, bool rois_are_double, T* grad_input, bool channels_last,
                                       void* workspace, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  if (p.rois > kInt || p.height > kInt / 4 || p.width > kInt / 4 || p.batch > kInt ||
      p.pooled_height * p.pooled_width > kInt / (2 * kBatch))
    return cudaErrorInvalidValue;
  const RotatedRois prepared(workspace, p.rois);
  const cudaError_t error = roi_align_rotated_prepare(p, clockwise, rois, rois_are_double, prepared, stream);
  if (error != cudaSuccess) return error;
  const BackwardArgs a{.p = p,
                       .rois = prepared.roi,
                       .pixels = prepared.bounds.pixels,
                       .image = prepared.bounds.image,
                       .stride_k = strides[0],
                       .stride_c = strides[1],
                       .stride_h = strides[2],
                       .stride_w = strides[3],
                       .tiles_y = int(ceil_div<int64_t>(p.height, kTile)),
                       .tiles_x = int(ceil_div<int64_t>(p.width, kTile))};
  if (!channels_last) return run<T, 1, kPlanes<T>, false>(a, grad, grad_input, stream);
  constexpr int V = kPack<T>;
  const bool packed = p.channels % V == 0 && strides[0] % V == 0 && strides[2] % V == 0 && strides[3] % V == 0 &&
                      reinterpret_cast<uintptr_t>(grad) % 16 == 0 && reinterpret_cast<uintptr_t>(grad_input) % 16 == 0;
  return packed ? run<T, kSegment, V, true>(a, grad, grad_input, stream)
                : run<T, kSegment, 1, true>(a, grad, grad_input, stream);
}

#define INSTANTIATE(T)                                                                                      \
  template cudaError_t roi_align_rotated_backward<T>(const RoiAlignParams&, bool, const T*, const int64_t*, \
                                                     const void*, bool, T*, bool, void*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
