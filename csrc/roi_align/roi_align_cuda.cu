// RoI Align forward on the GPU.
//
// A block takes one RoI (or a run of its bins), computes its taps once in double into shared memory
// and shares them over all channels. channels_last: a thread owns 16 bytes of channels of one bin, so
// a warp reads and writes 512 consecutive bytes. Contiguous: a thread owns four channels of one bin,
// its neighbours the neighbouring bins, so a warp reads a few rows of the same plane at a time.
#include <limits>

#include "common/cuda/device.cuh"
#include "roi_align/roi_align_cuda.h"
#include "roi_align/roi_taps.cuh"

namespace structops::cuda {
namespace {

// 128 threads of at most 64 registers: 8 blocks a multiprocessor, so 1000 RoIs are one wave of 132.
constexpr int kThreads = 128, kBlocksPerMultiprocessor = 8;
// With fewer blocks than this a RoI is cut into several, down to four items a thread: below that
// computing the taps again costs more than the parallelism brings.
constexpr int64_t kBlocksWanted = 2048, kItemsPerThread = 4;
constexpr int kLoadsInFlight = 4;
// Planes a thread takes of a contiguous map: with four of double it would spill.
template <class T>
constexpr int kPlanes = sizeof(T) == 8 ? 2 : 4;

struct ForwardArgs {
  RoiAlignParams p;
  Rois rois;
  int64_t stride_n, stride_c, stride_h, stride_w;  // of the input, in bytes
  int row_bytes, pixel_bytes;                      // stride_h and stride_w, where they fit: one instruction, not five
  int capacity_y, capacity_x;                      // see tap_capacity
  // An item is one bin of one group of channels. Items of a RoI count in mixed radix, fastest digit
  // first: (group, pw, ph) for channels_last, (pw, ph, group) otherwise.
  int items, items_per_block;
  int radix0, radix1;
  int step0, step1, step2;  // kThreads in that system: walking needs no division
};

struct Item {
  int linear, digit0, digit1, digit2;

  __device__ __forceinline__ Item(const ForwardArgs& a, int linear_) : linear(linear_) {
    digit0 = linear % a.radix0;
    digit1 = linear / a.radix0 % a.radix1;
    digit2 = linear / a.radix0 / a.radix1;
  }
  __device__ __forceinline__ void advance(const ForwardArgs& a) {
    linear += kThreads;
    digit0 += a.step0;
    int carry = digit0 >= a.radix0;
    digit0 -= carry ? a.radix0 : 0;
    digit1 += a.step1 + carry;
    carry = digit1 >= a.radix1;
    digit1 -= carry ? a.radix1 : 0;
    digit2 += a.step2 + carry;
  }
};

// output [K, PH, PW, groups, V]; input [N, H, W, groups, V] by its strides.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    roi_align_nhwc_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output) {
  using A = acc_t<T>;
  using P = Pack<T, V>;
  const TapTables<A> tables(a.p, a.capacity_y, a.capacity_x);
  const int k = blockIdx.x;
  const int image = tables.fill(a.p, a.rois, k, a.capacity_y, a.capacity_x);
  const char* base = reinterpret_cast<const char*>(input) + (image < 0 ? 0 : image * a.stride_n);
  P* out = reinterpret_cast<P*>(output) + int64_t(k) * a.items;
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (Item item(a, begin + threadIdx.x); item.linear < end; item.advance(a)) {
    A sum[V];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
    if (image >= 0) {
      const TapRange rows = tables.rows[item.digit2], columns = tables.columns[item.digit1];
      const char* group = opaque(base + int64_t(item.digit0) * int(sizeof(P)));
      for (int i = 0; i < rows.count; ++i) {
        const Tap<A> row = tables.row_taps[rows.first + i];
        const char* at = opaque(group + int64_t(row.pixel) * a.row_bytes);
        // A row is summed before it is weighted: the sum of a large bin then has short chains, and
        // no weight product is needed per pixel.
        A line[V];
#pragma unroll
        for (int v = 0; v < V; ++v) line[v] = A(0);
        for (int j = 0; j < columns.count; j += kLoadsInFlight) {
          P pack[kLoadsInFlight];
          A weight[kLoadsInFlight];
#pragma unroll
          for (int u = 0; u < kLoadsInFlight; ++u) {
            weight[u] = A(0);
            if (j + u < columns.count) {
              const Tap<A> column = tables.column_taps[columns.first + j + u];
              weight[u] = column.weight;
              pack[u] = load_pack<T, V>(at + int64_t(column.pixel) * a.pixel_bytes);
            }
          }
#pragma unroll
          for (int u = 0; u < kLoadsInFlight; ++u) {
            if (j + u < columns.count) {
#pragma unroll
              for (int v = 0; v < V; ++v) line[v] = fused(weight[u], up(pack[u], v), line[v]);
            }
          }
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] = fused(row.weight, line[v], sum[v]);
      }
    }
    P result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.value[v] = down<T>(sum[v]);
    out[item.linear] = result;
  }
}

// output [K, C, PH, PW]; input [N, C, H, W] by its strides.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    roi_align_nchw_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output) {
  using A = acc_t<T>;
  constexpr int M = kPlanes<T>;
  const TapTables<A> tables(a.p, a.capacity_y, a.capacity_x);
  const int k = blockIdx.x;
  const int image = tables.fill(a.p, a.rois, k, a.capacity_y, a.capacity_x);
  const char* base = reinterpret_cast<const char*>(input) + (image < 0 ? 0 : image * a.stride_n);
  const int channels = static_cast<int>(a.p.channels), bins = a.radix0 * a.radix1;
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (Item item(a, begin + threadIdx.x); item.linear < end; item.advance(a)) {
    const int channel = item.digit2 * M;
    A sum[M];
#pragma unroll
    for (int m = 0; m < M; ++m) sum[m] = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
    if (image >= 0) {
      const TapRange rows = tables.rows[item.digit1], columns = tables.columns[item.digit0];
      // Past the last channel the last one is read again and not written.
      const char* plane[M];
#pragma unroll
      for (int m = 0; m < M; ++m) plane[m] = base + int64_t(min(channel + m, channels - 1)) * a.stride_c;
      for (int i = 0; i < rows.count; ++i) {
        const Tap<A> row = tables.row_taps[rows.first + i];
        const int64_t offset = row.pixel * a.stride_h;
        A line[M] = {};
#pragma unroll 2
        for (int j = 0; j < columns.count; ++j) {
          const Tap<A> column = tables.column_taps[columns.first + j];
          const int64_t at = offset + column.pixel * a.stride_w;
#pragma unroll
          for (int m = 0; m < M; ++m)
            line[m] = fused(column.weight, up(*reinterpret_cast<const T*>(plane[m] + at)), line[m]);
        }
#pragma unroll
        for (int m = 0; m < M; ++m) sum[m] = fused(row.weight, line[m], sum[m]);
      }
    }
    T* out = output + (int64_t(k) * channels + channel) * bins + item.digit1 * a.radix0 + item.digit0;
#pragma unroll
    for (int m = 0; m < M; ++m)
      if (channel + m < channels) out[int64_t(m) * bins] = down<T>(sum[m]);
  }
}

// The same without tables, for what does not fit them (adaptive sampling on maps some ten thousand
// pixels wide, enormous outputs or strides): a thread finds the samples of one output element itself.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    roi_align_untabled_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output,
                              int64_t elements, bool channels_last) {
  using A = acc_t<T>;
  for (int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x; e < elements; e += int64_t(gridDim.x) * kThreads) {
    const int64_t bins = a.p.pooled_height * a.p.pooled_width, roi_elements = bins * a.p.channels;
    const int k = static_cast<int>(e / roi_elements);
    const int64_t in_roi = e % roi_elements;
    const int64_t bin = channels_last ? in_roi / a.p.channels : in_roi % bins;
    const int64_t channel = channels_last ? in_roi % a.p.channels : in_roi / bins;
    const int64_t ph = bin / a.p.pooled_width, pw = bin % a.p.pooled_width;
    const RoiAxis y = roi_axis(a.rois, k, true, a.p), x = roi_axis(a.rois, k, false, a.p);
    const int image = roi_image(a.rois, k, a.p.batch, a.p.spatial_scale);
    A sum = A(0);
    if (image < 0) {
      sum = std::numeric_limits<A>::quiet_NaN();
    } else {
      const char* plane = reinterpret_cast<const char*>(input) + image * a.stride_n + channel * a.stride_c;
      const double share = 1.0 / (static_cast<double>(y.samples) * static_cast<double>(x.samples));
      int64_t row_begin, row_end, column_begin, column_end;
      y.inside_range(ph, row_begin, row_end);
      x.inside_range(pw, column_begin, column_end);
      const auto value = [&](double weight, int64_t row, int64_t column) {
        const A w = static_cast<A>(weight * share);
        return w == A(0) ? A(0) : w * up(*reinterpret_cast<const T*>(plane + row * a.stride_h + column * a.stride_w));
      };
      for (int64_t i = row_begin; i < row_end; ++i) {
        const RoiSample r = y.sample(ph, i);
        if (!r.inside) continue;
        A line = A(0);
        for (int64_t j = column_begin; j < column_end; ++j) {
          const RoiSample c = x.sample(pw, j);
          if (!c.inside) continue;
          line += value((1.0 - r.fraction) * (1.0 - c.fraction), r.low, c.low) +
                  value((1.0 - r.fraction) * c.fraction, r.low, c.low + 1);
          line += value(r.fraction * (1.0 - c.fraction), r.low + 1, c.low) +
                  value(r.fraction * c.fraction, r.low + 1, c.low + 1);
        }
        sum += line;
      }
    }
    output[e] = down<T>(sum);
  }
}

bool aligned_to(int64_t bytes, const void* pointer, const ForwardArgs& a) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0 && a.stride_n % bytes == 0 && a.stride_h % bytes == 0 &&
         a.stride_w % bytes == 0;
}

}  // namespace

template <class T>
cudaError_t roi_align_forward(const RoiAlignParams& p, const T* input, const int64_t strides[4], const void* rois,
                              bool rois_are_double, T* output, bool channels_last, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max(), size = sizeof(T);
  if (p.rois > kInt || p.height > kInt / 4 || p.width > kInt / 4 || p.batch > kInt) return cudaErrorInvalidValue;
  ForwardArgs a{.p = p,
                .rois = {rois, rois_are_double},
                .stride_n = strides[0] * size,
                .stride_c = strides[1] * size,
                .stride_h = strides[2] * size,
                .stride_w = strides[3] * size};
  const int64_t bins = p.pooled_height * p.pooled_width;
  const int64_t capacity_y = tap_capacity(p.pooled_height, p.sampling_ratio, p.height);
  const int64_t capacity_x = tap_capacity(p.pooled_width, p.sampling_ratio, p.width);
  const size_t shared = TapTables<acc_t<T>>::bytes(p, capacity_y, capacity_x);
  const bool tabled = shared <= kMaxSharedBytes && bins * p.channels < kInt / 2 &&
                      (!channels_last || (a.stride_w <= kInt && a.stride_h <= kInt));
  if (!tabled) {
    const int64_t elements = p.rois * bins * p.channels, blocks = ceil_div<int64_t>(elements, kThreads);
    return launch(roi_align_untabled_kernel<T>, dim3(unsigned(blocks < kInt ? blocks : kInt)), dim3(kThreads), 0,
                  stream, a, input, output, elements, channels_last);
  }
  a.row_bytes = int(a.stride_h);
  a.pixel_bytes = int(a.stride_w);
  a.capacity_y = int(capacity_y);
  a.capacity_x = int(capacity_x);
  const bool packed =
      p.channels % kPack<T> == 0 && aligned_to(16, input, a) && reinterpret_cast<uintptr_t>(output) % 16 == 0;
  const int groups =
      int(channels_last ? p.channels / (packed ? kPack<T> : 1) : ceil_div<int64_t>(p.channels, kPlanes<T>));
  a.items = int(bins) * groups;
  a.radix0 = channels_last ? groups : int(p.pooled_width);
  a.radix1 = channels_last ? int(p.pooled_width) : int(p.pooled_height);
  a.step0 = kThreads % a.radix0;
  a.step1 = kThreads / a.radix0 % a.radix1;
  a.step2 = kThreads / a.radix0 / a.radix1;
  const int64_t most = ceil_div<int64_t>(a.items, kThreads * kItemsPerThread), wanted = kBlocksWanted / p.rois;
  const int64_t blocks_per_roi = wanted < 1 ? 1 : wanted < most ? wanted : most;
  // Whole rounds of the block's threads: a round of a few items costs as much as a full one.
  a.items_per_block = int(ceil_div(ceil_div<int64_t>(a.items, blocks_per_roi), int64_t(kThreads))) * kThreads;
  const dim3 grid(unsigned(p.rois), unsigned(ceil_div(a.items, a.items_per_block))), block(kThreads);
  const auto kernel = !channels_last ? roi_align_nchw_kernel<T>
                      : packed       ? roi_align_nhwc_kernel<T, kPack<T>>
                                     : roi_align_nhwc_kernel<T, 1>;
  return launch(kernel, grid, block, shared, stream, a, input, output);
}

#define INSTANTIATE(T)                                                                                              \
  template cudaError_t roi_align_forward<T>(const RoiAlignParams&, const T*, const int64_t*, const void*, bool, T*, \
                                            bool, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
