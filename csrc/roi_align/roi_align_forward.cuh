// RoI Align forward on the GPU: the kernels, over one map (roi_align) or the maps of a pyramid (multiscale_roi_align).
//
// A block takes one RoI (or a run of its bins), computes its taps once in double into shared memory
// and shares them over all channels. channels_last: a thread owns 16 bytes of channels of one bin, so
// a warp reads and writes 512 consecutive bytes. Contiguous: a thread owns four channels of one bin,
// its neighbours the neighbouring bins, so a warp reads a few rows of the same plane at a time.
#pragma once
#include <limits>

#include "common/cuda/device.cuh"
#include "roi_align/roi_taps.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128, kBlocksPerMultiprocessor = 8;
// With fewer blocks than this a RoI is cut into several, down to four items a thread: below that
// computing the taps again costs more than the parallelism brings.
constexpr int64_t kBlocksWanted = 2048, kItemsPerThread = 4;
constexpr int kLoadsInFlight = 4;
// Planes a thread takes of a contiguous map: with four of double it would spill.
template <class T>
constexpr int kPlanes = sizeof(T) == 8 ? 2 : 4;

// Where the elements of a feature map [N, C, H, W] are.
struct MapStrides {
  int64_t n, c, h, w;          // in bytes
  int row_bytes, pixel_bytes;  // h and w, where they fit: one instruction, not five; of channels_last
};

struct ForwardArgs {
  RoiAlignParams p;  // height, width, spatial_scale: of the only map
  Rois rois;
  MapStrides strides;          // likewise; pixel_bytes: of every map
  int capacity_y, capacity_x;  // see tap_capacity; of the largest map
  // An item is one bin of one group of channels. Items of a RoI count in mixed radix, fastest digit
  // first: (group, pw, ph) for channels_last, (pw, ph, group) otherwise.
  int items, items_per_block;
  int radix0, radix1;
  int step0, step1, step2;  // kThreads in that system: walking needs no division
};

// Instead of an image: what all outputs of the RoI are. TapTables::fill returns the first.
constexpr int kAllNan = -1, kAllZero = -2;

// Where the kernels find a RoI's map, as a type: roi_align has one, and knows it without looking. A pyramid
// (csrc/multiscale_roi_align) has the same members.
template <class T>
struct OneMap {
  static constexpr bool kNeverZero = true;  // find() never returns kAllZero
  const T* __restrict__ input;

  // The place of RoI k's map, or kAllNan, kAllZero.
  __device__ __forceinline__ int find(const ForwardArgs&, int) const { return 0; }
  // What is there; of place -1 and -2 anything that can be read.
  __device__ __forceinline__ const char* data(int) const { return reinterpret_cast<const char*>(input); }
  __device__ __forceinline__ const MapStrides& strides(const ForwardArgs& a, int) const { return a.strides; }
  __device__ __forceinline__ const RoiAlignParams& parameters(const ForwardArgs& a, int) const { return a.p; }
};

// Which of the two, where image is negative. With one comparison where that will do: it saves a register.
template <class Maps>
__device__ __forceinline__ bool all_nan(int image) {
  return Maps::kNeverZero ? image < 0 : image == kAllNan;
}

// The row of a level is two more registers in the loop, which eight packed halves leave no room for.
template <class T, int V, class Maps>
constexpr int kBlocks = Maps::kNeverZero || V < 8 ? kBlocksPerMultiprocessor : kBlocksPerMultiprocessor - 1;

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
template <class T, int V, class Maps>
__global__ void __launch_bounds__(kThreads, kBlocks<T, V, Maps>)
    roi_align_nhwc_kernel(const ForwardArgs a, const Maps maps, T* __restrict__ output) {
  using A = acc_t<T>;
  using P = Pack<T, V>;
  const TapTables<A> tables(a.p, a.capacity_y, a.capacity_x);
  const int k = blockIdx.x;
  const int level = maps.find(a, k);
  const int image = level < 0 ? level : tables.fill(maps.parameters(a, level), a.rois, k, a.capacity_y, a.capacity_x);
  const MapStrides& strides = maps.strides(a, level);
  const char* base = maps.data(level) + (image < 0 ? 0 : image * strides.n);
  P* out = reinterpret_cast<P*>(output) + int64_t(k) * a.items;
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (Item item(a, begin + threadIdx.x); item.linear < end; item.advance(a)) {
    A sum[V];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = all_nan<Maps>(image) ? std::numeric_limits<A>::quiet_NaN() : A(0);
    if (image >= 0) {
      const TapRange rows = tables.rows[item.digit2], columns = tables.columns[item.digit1];
      const char* group = opaque(base + int64_t(item.digit0) * int(sizeof(P)));
      for (int i = 0; i < rows.count; ++i) {
        const Tap<A> row = tables.row_taps[rows.first + i];
        const char* at = opaque(group + int64_t(row.pixel) * strides.row_bytes);
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
              pack[u] = load_pack<T, V>(at + int64_t(column.pixel) * a.strides.pixel_bytes);
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
template <class T, class Maps>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    roi_align_nchw_kernel(const ForwardArgs a, const Maps maps, T* __restrict__ output) {
  using A = acc_t<T>;
  constexpr int M = kPlanes<T>;
  const TapTables<A> tables(a.p, a.capacity_y, a.capacity_x);
  const int k = blockIdx.x;
  const int level = maps.find(a, k);
  const int image = level < 0 ? level : tables.fill(maps.parameters(a, level), a.rois, k, a.capacity_y, a.capacity_x);
  const MapStrides& strides = maps.strides(a, level);
  const char* base = maps.data(level) + (image < 0 ? 0 : image * strides.n);
  const int channels = static_cast<int>(a.p.channels), bins = a.radix0 * a.radix1;
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (Item item(a, begin + threadIdx.x); item.linear < end; item.advance(a)) {
    const int channel = item.digit2 * M;
    A sum[M];
#pragma unroll
    for (int m = 0; m < M; ++m) sum[m] = all_nan<Maps>(image) ? std::numeric_limits<A>::quiet_NaN() : A(0);
    if (image >= 0) {
      const TapRange rows = tables.rows[item.digit1], columns = tables.columns[item.digit0];
      // Past the last channel the last one is read again and not written.
      const char* plane[M];
#pragma unroll
      for (int m = 0; m < M; ++m) plane[m] = base + int64_t(min(channel + m, channels - 1)) * strides.c;
      for (int i = 0; i < rows.count; ++i) {
        const Tap<A> row = tables.row_taps[rows.first + i];
        const int64_t offset = row.pixel * strides.h;
        A line[M] = {};
#pragma unroll 2
        for (int j = 0; j < columns.count; ++j) {
          const Tap<A> column = tables.column_taps[columns.first + j];
          const int64_t at = offset + column.pixel * strides.w;
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
template <class T, class Maps>
__global__ void __launch_bounds__(kThreads, 4)
    roi_align_untabled_kernel(const ForwardArgs a, const Maps maps, T* __restrict__ output, int64_t elements,
                              bool channels_last) {
  using A = acc_t<T>;
  for (int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x; e < elements; e += int64_t(gridDim.x) * kThreads) {
    const int64_t bins = a.p.pooled_height * a.p.pooled_width, roi_elements = bins * a.p.channels;
    const int k = static_cast<int>(e / roi_elements);
    const int64_t in_roi = e % roi_elements;
    const int64_t bin = channels_last ? in_roi / a.p.channels : in_roi % bins;
    const int64_t channel = channels_last ? in_roi % a.p.channels : in_roi / bins;
    const int64_t ph = bin / a.p.pooled_width, pw = bin % a.p.pooled_width;
    const int level = maps.find(a, k);
    const MapStrides& strides = maps.strides(a, level);
    const RoiAlignParams& p = maps.parameters(a, level);
    const RoiAxis y = roi_axis(a.rois, k, true, p), x = roi_axis(a.rois, k, false, p);
    const int image = level < 0 ? level : roi_image(a.rois, k, p);
    A sum = all_nan<Maps>(image) ? std::numeric_limits<A>::quiet_NaN() : A(0);
    if (image >= 0) {
      const char* plane = maps.data(level) + image * strides.n + channel * strides.c;
      const double share = 1.0 / (static_cast<double>(y.samples) * static_cast<double>(x.samples));
      int64_t row_begin, row_end, column_begin, column_end;
      y.inside_range(ph, row_begin, row_end);
      x.inside_range(pw, column_begin, column_end);
      const auto value = [&](double weight, int64_t row, int64_t column) {
        const A w = static_cast<A>(weight * share);
        return w == A(0) ? A(0) : w * up(*reinterpret_cast<const T*>(plane + row * strides.h + column * strides.w));
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

// Of a map of T with these element strides; row_bytes and pixel_bytes only where fits_in_int says so.
template <class T>
MapStrides map_strides(const int64_t strides[4]) {
  constexpr int64_t size = sizeof(T);
  return {strides[0] * size, strides[1] * size,      strides[2] * size,
          strides[3] * size, int(strides[2] * size), int(strides[3] * size)};
}
inline bool fits_in_int(const MapStrides& s) { return s.w == s.pixel_bytes && s.h == s.row_bytes; }
inline bool aligned_to(int64_t bytes, const void* data, const MapStrides& s) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0 && s.n % bytes == 0 && s.h % bytes == 0 && s.w % bytes == 0;
}

// Launches the kernel that suits: a.p, a.rois and a.strides are given. height, width: of the largest map; packable:
// every map can be read 16 bytes at a time; narrow: fits_in_int of every map.
template <class T, class Maps>
cudaError_t launch_forward(ForwardArgs a, const Maps& maps, int64_t height, int64_t width, bool packable, bool narrow,
                           T* output, bool channels_last, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  const RoiAlignParams& p = a.p;
  if (p.rois > kInt || height > kInt / 4 || width > kInt / 4 || p.batch > kInt) return cudaErrorInvalidValue;
  const int64_t bins = p.pooled_height * p.pooled_width;
  const int64_t capacity_y = tap_capacity(p.pooled_height, p.sampling_ratio, height);
  const int64_t capacity_x = tap_capacity(p.pooled_width, p.sampling_ratio, width);
  const size_t shared = TapTables<acc_t<T>>::bytes(p, capacity_y, capacity_x);
  if (shared > kMaxSharedBytes || bins * p.channels >= kInt / 2 || (channels_last && !narrow)) {
    const int64_t elements = p.rois * bins * p.channels, blocks = ceil_div<int64_t>(elements, kThreads);
    return launch(roi_align_untabled_kernel<T, Maps>, dim3(unsigned(blocks < kInt ? blocks : kInt)), dim3(kThreads), 0,
                  stream, a, maps, output, elements, channels_last);
  }
  a.capacity_y = int(capacity_y);
  a.capacity_x = int(capacity_x);
  const bool packed = packable && p.channels % kPack<T> == 0 && reinterpret_cast<uintptr_t>(output) % 16 == 0;
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
  const auto kernel = !channels_last ? roi_align_nchw_kernel<T, Maps>
                      : packed       ? roi_align_nhwc_kernel<T, kPack<T>, Maps>
                                     : roi_align_nhwc_kernel<T, 1, Maps>;
  return launch(kernel, grid, block, shared, stream, a, maps, output);
}

}  // namespace
}  // namespace structops::cuda
