// RoI Pool backward on the GPU: every warp owns a tile of pixels of one image and a run of channels, sums the tile in
// shared memory and writes it once, zeros included. So no atomics and no clearing pass.
//
// A warp walks the RoIs in order and keeps those whose pixels meet its tile; of their bins, those that meet it; and
// adds to the pixel that argmax names, when that is in the tile. A lane owns its channels through all of this, so no
// two threads ever add to one place, the order of the sum is that of the RoIs and bins, and nobody waits for anybody.
//
// Cost for 1000 x 256 x 7 x 7 in float over 13 x 13 pixels: a bin of 2.9 pixels meets 2.4 tiles of 4 x 8, so 29M
// visits of one element, each some 16 instructions: 15M warp instructions, 16 us of an H200's issue slots. It reads
// 100 MB of gradient and indices (again from the L2 cache 1.4 times) and writes 69 MB: 40 us.
#include <limits>

#include "common/cuda/device.cuh"
#include "common/cuda/ptx.cuh"
#include "common/cuda/rois.cuh"
#include "roi_pool/roi_pool_bins.h"
#include "roi_pool/roi_pool_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kScan = 4;  // RoIs a lane looks at in one step of the walk: loads in flight

// Rows and columns of a tile: 16 KB of sums a warp, so three blocks a multiprocessor.
template <class A, int V>
constexpr int kTilePixels = 16384 / (32 * V * int(sizeof(A)));
template <class A, int V>
constexpr int kTileRows = kTilePixels<A, V> >= 64 ? 8 : 4;
template <class A, int V>
constexpr int kTileColumns = kTilePixels<A, V> / kTileRows<A, V>;
// A row of 32 lanes; with one channel a lane the tile is also read across, which would meet one bank.
template <int V>
constexpr int kPitch = V == 1 ? 33 : 32;

struct Workspace {
  int4* bounds;  // [K] pixels of all bins: (x0, x1, y0, y1), ends excluded
  int2* bins;    // [K, PH + PW] (first, last) of every row of bins, then column
  int* image;    // [K]; -1: touches nothing

  Workspace(void* memory, const RoiPoolParams& p)
      : bounds(static_cast<int4*>(memory)),
        bins(reinterpret_cast<int2*>(bounds + p.rois)),
        image(reinterpret_cast<int*>(bins + p.rois * (p.pooled_height + p.pooled_width))) {}
};

struct BackwardArgs {
  RoiPoolParams p;
  const int4* bounds;
  const int2* bins;
  const int* image;
  int64_t grad_k, grad_c, grad_h, grad_w;          // strides of grad, in elements
  int64_t argmax_k, argmax_c, argmax_h, argmax_w;  // of argmax
  int tiles_y, tiles_x, tiles;
  unsigned divide;  // see row_of
  int shift;
  bool channels_last;
};

// A thread a bin.
__global__ void __launch_bounds__(kThreads)
    roi_pool_bins_kernel(const RoiPoolParams p, const Rois rois, int4* __restrict__ bounds, int2* __restrict__ bins,
                         int* __restrict__ image) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, each = p.pooled_height + p.pooled_width;
  if (i >= p.rois * each) return;
  const int k = static_cast<int>(i / each);
  const int64_t q = i % each;
  const bool vertical = q < p.pooled_height;
  const RoiBins axis(rois.at(k, vertical ? 2 : 1), rois.at(k, vertical ? 4 : 3), p.spatial_scale,
                     vertical ? p.height : p.width);
  int2 bin;
  axis.bin(vertical ? q : q - p.pooled_height, vertical ? p.pooled_height : p.pooled_width, bin.x, bin.y);
  bins[i] = bin;
  if (q != 0) return;
  const RoiBins across(rois.at(k, 1), rois.at(k, 3), p.spatial_scale, p.width);
  int unused;
  int4 b;
  across.bin(0, p.pooled_width, b.x, unused);
  across.bin(p.pooled_width - 1, p.pooled_width, unused, b.y);
  axis.bin(0, p.pooled_height, b.z, unused);
  axis.bin(p.pooled_height - 1, p.pooled_height, unused, b.w);
  bounds[k] = b;
  image[k] = b.x < b.y && b.z < b.w ? roi_image(rois, k, p.batch, p.spatial_scale) : -1;
}

// The bins [first, last) of one axis that meet pixels [low, high). Called by the whole warp.
__device__ __forceinline__ void bins_meeting(const int2* bins, int count, int low, int high, int& first, int& last) {
  const int lane = threadIdx.x % 32;
  first = last = 0;
  for (int begin = 0; begin < count; begin += 32) {
    bool hit = false;
    if (begin + lane < count) {
      const int2 bin = __ldg(bins + begin + lane);
      hit = bin.x < high && bin.y > low;
    }
    const unsigned hits = __ballot_sync(kFullWarp, hit);
    if (hits == 0) continue;
    if (last == 0) first = begin + __ffs(static_cast<int>(hits)) - 1;
    last = begin + 32 - __clz(static_cast<int>(hits));
  }
}

// at / width for at in [0, 2^31): three instructions, not twenty.
__device__ __forceinline__ int row_of(const BackwardArgs& a, int at) {
  return static_cast<int>((static_cast<unsigned long long>(static_cast<unsigned>(at)) * a.divide) >> a.shift);
}

// Packed: grad and argmax [K, PH, PW, C], grad_input [N, H, W, C], V channels one access. V = 1: any strides.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 3)
    roi_pool_backward_kernel(const BackwardArgs a, const T* __restrict__ grad, const int32_t* __restrict__ argmax,
                             T* __restrict__ grad_input) {
  using A = acc_t<T>;
  constexpr int kRows = kTileRows<A, V>, kColumns = kTileColumns<A, V>, kLoads = V == 8 ? 2 : 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t tile = int64_t(blockIdx.x) * kWarps + warp;
  if (tile >= a.tiles) return;
  // [kRows, kColumns, V, kPitch], of which a lane sees only its own column until the end.
  A* sums = dynamic_smem<A>() + warp * (kRows * kColumns * V * kPitch<V>);
  const int image = static_cast<int>(tile / (a.tiles_x * a.tiles_y));
  const int y0 = static_cast<int>(tile / a.tiles_x % a.tiles_y) * kRows;
  const int x0 = static_cast<int>(tile % a.tiles_x) * kColumns;
  const int height = min(kRows, static_cast<int>(a.p.height) - y0);
  const int width = min(kColumns, static_cast<int>(a.p.width) - x0), map_width = static_cast<int>(a.p.width);
  const int64_t channel = (int64_t(blockIdx.y) * 32 + lane) * V;
  const bool active = channel < a.p.channels;
#pragma unroll 4
  for (int i = 0; i < kRows * kColumns * V; ++i) sums[i * kPitch<V> + lane] = A(0);

  const int pooled_height = static_cast<int>(a.p.pooled_height), pooled_width = static_cast<int>(a.p.pooled_width);
  for (int64_t begin = 0; begin < a.p.rois; begin += 32 * kScan) {
    unsigned hits[kScan];
#pragma unroll
    for (int s = 0; s < kScan; ++s) {
      const int64_t k = begin + s * 32 + lane;
      bool hit = false;
      if (k < a.p.rois) {
        const int4 b = __ldg(a.bounds + k);
        hit = __ldg(a.image + k) == image && b.x < x0 + width && b.y > x0 && b.z < y0 + height && b.w > y0;
      }
      hits[s] = __ballot_sync(kFullWarp, hit);
    }
#pragma unroll 1
    for (int s = 0; s < kScan; ++s) {
      unsigned left = hits[0];
#pragma unroll
      for (int i = 1; i < kScan; ++i) left = s == i ? hits[i] : left;
      for (; left != 0; left &= left - 1) {
        const int64_t k = begin + s * 32 + __ffs(static_cast<int>(left)) - 1;
        const int2* bins = a.bins + k * (pooled_height + pooled_width);
        int ph0, ph1, pw0, pw1;
        bins_meeting(bins, pooled_height, y0, y0 + height, ph0, ph1);
        bins_meeting(bins + pooled_height, pooled_width, x0, x0 + width, pw0, pw1);
        if (!active) continue;
        for (int ph = ph0; ph < ph1; ++ph) {
          const T* g = grad + k * a.grad_k + channel * a.grad_c + ph * a.grad_h + pw0 * a.grad_w;
          const int32_t* m = argmax + k * a.argmax_k + channel * a.argmax_c + ph * a.argmax_h + pw0 * a.argmax_w;
          for (int pw = pw0; pw < pw1; pw += kLoads) {
            Pack<T, V> value[kLoads];
            Pack<int, V> place[kLoads];
#pragma unroll
            for (int u = 0; u < kLoads; ++u) {
              if (pw + u < pw1) {
                value[u] = load_pack<T, V>(g + u * a.grad_w);
                place[u] = *reinterpret_cast<const Pack<int, V>*>(m + u * a.argmax_w);
              }
            }
#pragma unroll
            for (int u = 0; u < kLoads; ++u) {
              if (pw + u < pw1) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                  const int at = place[u].value[v];
                  const int y = row_of(a, at), dy = y - y0, dx = at - y * map_width - x0;
                  if (at >= 0 && dy >= 0 && dy < height && dx >= 0 && dx < width)
                    sums[((dy * kColumns + dx) * V + v) * kPitch<V> + lane] += up(value[u], v);
                }
              }
            }
            g += kLoads * a.grad_w;
            m += kLoads * a.argmax_w;
          }
        }
      }
    }
  }

  if (a.channels_last) {
    if (!active) return;
    T* to = grad_input + ((image * a.p.height + y0) * a.p.width + x0) * a.p.channels + channel;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        Pack<T, V> pack;
#pragma unroll
        for (int v = 0; v < V; ++v) pack.value[v] = down<T>(sums[((y * kColumns + x) * V + v) * kPitch<V> + lane]);
        ptx::store_pack(to + (y * a.p.width + x) * a.p.channels, pack);
      }
    }
    return;
  }
  if constexpr (V == 1) {  // lanes along the pixels of a row, as many rows as fit
    __syncwarp();
    const int64_t c0 = int64_t(blockIdx.y) * 32;
    const int channels = static_cast<int>(a.p.channels - c0 < 32 ? a.p.channels - c0 : 32);
    T* to = grad_input + ((image * a.p.channels + c0) * a.p.height + y0) * a.p.width + x0;
    for (int i = lane; i < channels * kRows * kColumns; i += 32) {
      const int x = i % kColumns, y = i / kColumns % kRows, c = i / (kRows * kColumns);
      if (x < width && y < height)
        to[(c * a.p.height + y) * a.p.width + x] = down<T>(sums[(y * kColumns + x) * kPitch<V> + c]);
    }
  }
}

template <class T, int V>
cudaError_t run(BackwardArgs a, const T* grad, const int32_t* argmax, T* grad_input, cudaStream_t stream) {
  using A = acc_t<T>;
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  a.tiles_y = int(ceil_div<int64_t>(a.p.height, kTileRows<A, V>));
  a.tiles_x = int(ceil_div<int64_t>(a.p.width, kTileColumns<A, V>));
  const int64_t tiles = a.p.batch * a.tiles_y * a.tiles_x, runs = ceil_div<int64_t>(a.p.channels, 32 * V);
  if (tiles > kInt || runs > 65535) return cudaErrorInvalidValue;
  a.tiles = int(tiles);
  const size_t shared = size_t(kThreads) / 32 * kTileRows<A, V> * kTileColumns<A, V> * V * kPitch<V> * sizeof(A);
  return launch(roi_pool_backward_kernel<T, V>, dim3(unsigned(ceil_div<int64_t>(tiles, kWarps)), unsigned(runs)),
                dim3(kThreads), shared, stream, a, grad, argmax, grad_input);
}

bool packable(const int64_t strides[4], int64_t values, const void* pointer, int64_t bytes) {
  return strides[1] == 1 && strides[0] % values == 0 && strides[2] % values == 0 && strides[3] % values == 0 &&
         reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

}  // namespace

size_t roi_pool_backward_workspace(const RoiPoolParams& p) {
  return size_t(p.rois) * (sizeof(int4) + sizeof(int) + size_t(p.pooled_height + p.pooled_width) * sizeof(int2));
}

template <class T>
cudaError_t roi_pool_backward(const RoiPoolParams& p, const T* grad, const int64_t gs[4], const void* rois,
                              bool rois_are_double, const int32_t* argmax, const int64_t as[4], T* grad_input,
                              bool channels_last, void* workspace, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  const int64_t bins = p.rois * (p.pooled_height + p.pooled_width);
  if (p.rois > kInt || p.height > kInt || p.width > kInt || p.batch > kInt || bins / kThreads >= kInt)
    return cudaErrorInvalidValue;
  const Workspace w(workspace, p);
  BackwardArgs a{.p = p,
                 .bounds = w.bounds,
                 .bins = w.bins,
                 .image = w.image,
                 .grad_k = gs[0],
                 .grad_c = gs[1],
                 .grad_h = gs[2],
                 .grad_w = gs[3],
                 .argmax_k = as[0],
                 .argmax_c = as[1],
                 .argmax_h = as[2],
                 .argmax_w = as[3]};
  a.channels_last = channels_last;
  // 2^(31 + l) / width, rounded up, with 2^l >= width: exact for 31 bits, and fits 32.
  int bits = 0;
  while ((int64_t(1) << bits) < p.width) ++bits;
  a.shift = 31 + bits;
  a.divide = static_cast<unsigned>((uint64_t(1) << a.shift) / uint64_t(p.width) + 1);
  const cudaError_t error =
      launch(roi_pool_bins_kernel, dim3(unsigned(ceil_div<int64_t>(bins, kThreads))), dim3(kThreads), 0, stream, p,
             Rois{rois, rois_are_double}, w.bounds, w.bins, w.image);
  if (error != cudaSuccess) return error;
  constexpr int V = kPack<T>;
  const bool packed = channels_last && p.channels % V == 0 && packable(gs, V, grad, 16) &&
                      packable(as, V, argmax, 4 * V) && reinterpret_cast<uintptr_t>(grad_input) % 16 == 0;
  return packed ? run<T, V>(a, grad, argmax, grad_input, stream) : run<T, 1>(a, grad, argmax, grad_input, stream);
}

#define INSTANTIATE(T)                                                                                         \
  template cudaError_t roi_pool_backward<T>(const RoiPoolParams&, const T*, const int64_t*, const void*, bool, \
                                            const int32_t*, const int64_t*, T*, bool, void*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
