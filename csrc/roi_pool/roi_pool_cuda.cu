// RoI Pool forward on the GPU.
//
// A block takes one RoI (or a run of its bins), computes where its bins begin and end once into shared memory and
// shares that over all channels. channels_last: a thread owns 16 bytes of channels of one bin, so a warp reads and
// writes 512 consecutive bytes. Contiguous: a thread owns four channels of one bin, its neighbours the neighbouring
// bins.
//
// 1000 x 256 x 7 x 7 in bfloat16 over 13 x 13 pixels: 8.6 pixels a bin, each a 16-byte load and 8 x 4 instructions, so
// 11 instructions an output for some 12.5M of them; the outputs are 25 MB, and 50 MB more of indices when they are
// wanted.
#include <limits>

#include "common/cuda/device.cuh"
#include "common/cuda/rois.cuh"
#include "roi_pool/roi_pool_bins.h"
#include "roi_pool/roi_pool_cuda.h"

namespace structops::cuda {
namespace {

// 128 threads of at most 64 registers: 8 blocks a multiprocessor, so 1000 RoIs are one wave of 132.
constexpr int kThreads = 128, kBlocksPerMultiprocessor = 8;
// With fewer blocks than this a RoI is cut into several, down to four items a thread.
constexpr int64_t kBlocksWanted = 2048, kItemsPerThread = 4;
constexpr int kLoadsInFlight = 4;
template <class T>
constexpr int kPlanes = sizeof(T) == 8 ? 2 : 4;  // a thread's, of a contiguous map

struct ForwardArgs {
  RoiPoolParams p;
  Rois rois;
  int64_t stride_n, stride_c, stride_h, stride_w;  // of the input, in bytes
  // An item is one bin of one group of channels. Items of a RoI count in mixed radix, fastest digit first: (group, pw,
  // ph) for channels_last, (pw, ph, group) otherwise.
  int items, items_per_block;
  int radix0, radix1;
};

__device__ __forceinline__ RoiBins roi_bins(const Rois& rois, int k, bool vertical, const RoiPoolParams& p) {
  return RoiBins(rois.at(k, vertical ? 2 : 1), rois.at(k, vertical ? 4 : 3), p.spatial_scale,
                 vertical ? p.height : p.width);
}

// The bins of RoI k in dynamic shared memory: [PH] rows, then [PW] columns, each (first, last). Returns its image, or
// -1 when its output is NaN. Called by the whole block.
__device__ __forceinline__ int fill_bins(const RoiPoolParams& p, const Rois& rois, int k) {
  const int image = roi_image(rois, k, p.batch, p.spatial_scale);
  if (image < 0) return -1;
  int2* bins = dynamic_smem<int2>();
  const int height = static_cast<int>(p.pooled_height), count = height + static_cast<int>(p.pooled_width);
  for (int q = threadIdx.x; q < count; q += blockDim.x) {
    const bool vertical = q < height;
    int2 bin;
    roi_bins(rois, k, vertical, p)
        .bin(vertical ? q : q - height, vertical ? p.pooled_height : p.pooled_width, bin.x, bin.y);
    bins[q] = bin;
  }
  __syncthreads();
  return image;
}

// Whether v is larger than best, or NaN when best is not: the first of equal values stays.
template <class A>
__device__ __forceinline__ bool beats(A v, A best) {
  return !(v <= best) && best == best;
}

// output [K, PH, PW, groups, V] and argmax likewise; input [N, H, W, groups, V] by its strides.
template <class T, int V, bool kArgmax>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    roi_pool_nhwc_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output,
                         int32_t* __restrict__ argmax) {
  using A = acc_t<T>;
  const int k = blockIdx.x;
  const int image = fill_bins(a.p, a.rois, k);
  const int2 *rows = dynamic_smem<int2>(), *columns = rows + a.p.pooled_height;
  const char* base = reinterpret_cast<const char*>(input) + (image < 0 ? 0 : image * a.stride_n);
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (int item = begin + threadIdx.x; item < end; item += kThreads) {
    const int bin = item / a.radix0, group = item - bin * a.radix0;
    A best[V];
    int at[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      best[v] = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
      at[v] = -1;
    }
    if (image >= 0) {
      const int2 y = rows[bin / a.radix1], x = columns[bin % a.radix1];
      const char* corner = base + y.x * a.stride_h + x.x * a.stride_w + int64_t(group) * int(sizeof(T) * V);
      int index = y.x * static_cast<int>(a.p.width);
      if (y.x < y.y && x.x < x.y) {
        const Pack<T, V> first = load_pack<T, V>(corner);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          best[v] = up(first, v);
          at[v] = index + x.x;
        }
      }
      for (int row = y.x; row < y.y; ++row) {
        const char* pixel = opaque(corner);
        for (int j = x.x; j < x.y; j += kLoadsInFlight) {
          Pack<T, V> pack[kLoadsInFlight];
#pragma unroll
          for (int u = 0; u < kLoadsInFlight; ++u)
            if (j + u < x.y) pack[u] = load_pack<T, V>(pixel + u * a.stride_w);
#pragma unroll
          for (int u = 0; u < kLoadsInFlight; ++u) {
            if (j + u < x.y) {
#pragma unroll
              for (int v = 0; v < V; ++v) {
                const A value = up(pack[u], v);
                const bool more = beats(value, best[v]);
                best[v] = more ? value : best[v];
                if constexpr (kArgmax) at[v] = more ? index + j + u : at[v];
              }
            }
          }
          pixel += kLoadsInFlight * a.stride_w;
        }
        corner += a.stride_h;
        index += static_cast<int>(a.p.width);
      }
    }
    const int64_t to = int64_t(k) * a.items + item;
    Pack<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.value[v] = down<T>(best[v]);
    reinterpret_cast<Pack<T, V>*>(output)[to] = result;
    if constexpr (kArgmax) {
      Pack<int, V> places;
#pragma unroll
      for (int v = 0; v < V; ++v) places.value[v] = at[v];
      reinterpret_cast<Pack<int, V>*>(argmax)[to] = places;
    }
  }
}

// output [K, C, PH, PW] and argmax likewise; input [N, C, H, W] by its strides.
template <class T, bool kArgmax>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    roi_pool_nchw_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output,
                         int32_t* __restrict__ argmax) {
  using A = acc_t<T>;
  constexpr int M = kPlanes<T>;
  const int k = blockIdx.x;
  const int image = fill_bins(a.p, a.rois, k);
  const int2 *rows = dynamic_smem<int2>(), *columns = rows + a.p.pooled_height;
  const char* base = reinterpret_cast<const char*>(input) + (image < 0 ? 0 : image * a.stride_n);
  const int channels = static_cast<int>(a.p.channels), bins = a.radix0 * a.radix1;
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (int item = begin + threadIdx.x; item < end; item += kThreads) {
    const int group = item / bins, bin = item - group * bins, channel = group * M;
    A best[M];
    int at[M];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      best[m] = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
      at[m] = -1;
    }
    if (image >= 0) {
      const int2 y = rows[bin / a.radix0], x = columns[bin % a.radix0];
      // Past the last channel the last one is read again and not written.
      const char* plane[M];
#pragma unroll
      for (int m = 0; m < M; ++m) plane[m] = base + int64_t(min(channel + m, channels - 1)) * a.stride_c;
      for (int row = y.x; row < y.y; ++row) {
        const int64_t offset = row * a.stride_h;
#pragma unroll 2
        for (int j = x.x; j < x.y; ++j) {
          const int64_t from = offset + j * a.stride_w;
          const int index = row * static_cast<int>(a.p.width) + j;
#pragma unroll
          for (int m = 0; m < M; ++m) {
            const A value = up(*reinterpret_cast<const T*>(plane[m] + from));
            const bool more = at[m] < 0 || beats(value, best[m]);
            best[m] = more ? value : best[m];
            at[m] = more ? index : at[m];
          }
        }
      }
    }
    const int64_t to = (int64_t(k) * channels + channel) * bins + bin;
#pragma unroll
    for (int m = 0; m < M; ++m) {
      if (channel + m < channels) {
        output[to + int64_t(m) * bins] = down<T>(best[m]);
        if constexpr (kArgmax) argmax[to + int64_t(m) * bins] = at[m];
      }
    }
  }
}

// The same without a table, for outputs too large for it: a thread finds the bin of one output element itself.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    roi_pool_untabled_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output,
                             int32_t* __restrict__ argmax, int64_t elements, bool channels_last) {
  using A = acc_t<T>;
  for (int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x; e < elements; e += int64_t(gridDim.x) * kThreads) {
    const int64_t bins = a.p.pooled_height * a.p.pooled_width, roi_elements = bins * a.p.channels;
    const int k = static_cast<int>(e / roi_elements);
    const int64_t in_roi = e % roi_elements;
    const int64_t bin = channels_last ? in_roi / a.p.channels : in_roi % bins;
    const int64_t channel = channels_last ? in_roi % a.p.channels : in_roi / bins;
    const int image = roi_image(a.rois, k, a.p.batch, a.p.spatial_scale);
    A best = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
    int at = -1;
    if (image >= 0) {
      int2 y, x;
      roi_bins(a.rois, k, true, a.p).bin(bin / a.p.pooled_width, a.p.pooled_height, y.x, y.y);
      roi_bins(a.rois, k, false, a.p).bin(bin % a.p.pooled_width, a.p.pooled_width, x.x, x.y);
      const char* plane = reinterpret_cast<const char*>(input) + image * a.stride_n + channel * a.stride_c;
      for (int row = y.x; row < y.y; ++row) {
        for (int j = x.x; j < x.y; ++j) {
          const A value = up(*reinterpret_cast<const T*>(plane + row * a.stride_h + j * a.stride_w));
          const bool more = at < 0 || beats(value, best);
          best = more ? value : best;
          at = more ? row * static_cast<int>(a.p.width) + j : at;
        }
      }
    }
    output[e] = down<T>(best);
    if (argmax != nullptr) argmax[e] = at;
  }
}

bool aligned_to(int64_t bytes, const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

template <class T, bool kArgmax>
auto choose(bool channels_last, bool packed) {
  return !channels_last ? roi_pool_nchw_kernel<T, kArgmax>
         : packed       ? roi_pool_nhwc_kernel<T, kPack<T>, kArgmax>
                        : roi_pool_nhwc_kernel<T, 1, kArgmax>;
}

}  // namespace

template <class T>
cudaError_t roi_pool_forward(const RoiPoolParams& p, const T* input, const int64_t strides[4], const void* rois,
                             bool rois_are_double, T* output, int32_t* argmax, bool channels_last,
                             cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max(), size = sizeof(T);
  if (p.rois > kInt || p.height > kInt || p.width > kInt || p.batch > kInt) return cudaErrorInvalidValue;
  ForwardArgs a{.p = p,
                .rois = {rois, rois_are_double},
                .stride_n = strides[0] * size,
                .stride_c = strides[1] * size,
                .stride_h = strides[2] * size,
                .stride_w = strides[3] * size};
  const int64_t bins = p.pooled_height * p.pooled_width;
  const size_t shared = size_t(p.pooled_height + p.pooled_width) * sizeof(int2);
  if (shared > kMaxSharedBytes || bins * p.channels >= kInt / 2) {
    const int64_t elements = p.rois * bins * p.channels, blocks = ceil_div<int64_t>(elements, kThreads);
    return launch(roi_pool_untabled_kernel<T>, dim3(unsigned(blocks < kInt ? blocks : kInt)), dim3(kThreads), 0, stream,
                  a, input, output, argmax, elements, channels_last);
  }
  const bool packed = p.channels % kPack<T> == 0 && aligned_to(16, input) && aligned_to(16, output) &&
                      aligned_to(4 * kPack<T>, argmax) && a.stride_n % 16 == 0 && a.stride_h % 16 == 0 &&
                      a.stride_w % 16 == 0;
  const int groups =
      int(channels_last ? p.channels / (packed ? kPack<T> : 1) : ceil_div<int64_t>(p.channels, kPlanes<T>));
  a.items = int(bins) * groups;
  a.radix0 = channels_last ? groups : int(p.pooled_width);
  a.radix1 = channels_last ? int(p.pooled_width) : int(p.pooled_height);
  const int64_t most = ceil_div<int64_t>(a.items, kThreads * kItemsPerThread), wanted = kBlocksWanted / p.rois;
  const int64_t blocks_per_roi = wanted < 1 ? 1 : wanted < most ? wanted : most;
  // Whole rounds of the block's threads: a round of a few items costs as much as a full one.
  a.items_per_block = int(ceil_div(ceil_div<int64_t>(a.items, blocks_per_roi), int64_t(kThreads))) * kThreads;
  const dim3 grid(unsigned(p.rois), unsigned(ceil_div(a.items, a.items_per_block))), block(kThreads);
  const auto kernel =
      argmax == nullptr ? choose<T, false>(channels_last, packed) : choose<T, true>(channels_last, packed);
  return launch(kernel, grid, block, shared, stream, a, input, output, argmax);
}

#define INSTANTIATE(T)                                                                                            \
  template cudaError_t roi_pool_forward<T>(const RoiPoolParams&, const T*, const int64_t*, const void*, bool, T*, \
                                           int32_t*, bool, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
