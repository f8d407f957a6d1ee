// Position-sensitive RoI pooling on the GPU, both ops: they differ in the weights of their taps alone.
//
// One kernel notes the taps of every RoI, computed in double, some 400 bytes a RoI. The others read them through the
// L1 cache.
//
// Forward: a thread takes one output element, its neighbours the neighbouring bins, which are neighbouring channels. In
// neither layout can a warp's loads be one access: every bin has pixels and a channel of its own. What an element needs
// is two to four rows of two to four columns, a sector (32 bytes) a row in a contiguous map and a sector a pixel in a
// channels_last one. For R-FCN (300 RoIs, 7 x 7 bins of 21 classes) that is 1.2M sectors or 40 MB from the L2 cache in
// the one and 3M or 90 MB in the other, 10 to 20 us of an H100, where the map itself (10 MB) is 3 us of its memory. So
// 16-byte loads have no place here.
//
// Backward: a warp owns one plane of the gradient, or a tile of it, in shared memory, and goes through the RoIs in
// order. Every channel belongs to one bin, so a RoI is one small rectangle of the plane and its pixels are spread over
// the lanes. No atomics and no clearing pass; the same bits from run to run.
#include <limits>

#include "common/cuda/device.cuh"
#include "common/cuda/rois.cuh"
#include "ps_roi_align/ps_roi_axis.h"
#include "ps_roi_align/ps_roi_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
// With fewer blocks than this a RoI is cut into several, down to two elements a thread.
constexpr int64_t kBlocksWanted = 2048, kItemsPerThread = 2;
constexpr int kLoadsInFlight = 4;
// A warp's tile of the gradient: holds a plane of 38 x 63, and lets 5 blocks on a multiprocessor.
constexpr int kTileBytes = 10 * 1024;
// Lanes along the columns and rows of a bin.
constexpr int kLanesAcross = 8, kLanesDown = 32 / kLanesAcross;

// The taps of one bin along one axis.
struct alignas(16) TapRun {
  int first, count;  // into the RoI's taps
  int low, high;     // first and last pixel; low > high when there are none
};

// Slots for the taps of a RoI. Two bins in a row share at most two pixels, so a bin that begins with pixel x begins at
// slot x + 2 * (its place): no bin needs to know how long the others are.
inline int64_t slots_of(int64_t extent, int64_t pooled) { return extent + 2 * pooled; }

template <class A>
struct Tables {
  Tap<A>* taps;   // [K, slots], rows before columns
  TapRun* runs;   // [K, PH + PW]
  int* image;     // [K]; -1: its output is NaN
  int64_t slots;  // a RoI
  int slots_y;    // of them, for rows

  Tables(void* workspace, const PsRoiParams& p) {
    slots_y = static_cast<int>(slots_of(p.height, p.pooled_height));
    slots = slots_y + slots_of(p.width, p.pooled_width);
    slots += slots % 2;  // runs must be aligned to 16 bytes
    taps = static_cast<Tap<A>*>(workspace);
    runs = reinterpret_cast<TapRun*>(taps + p.rois * slots);
    image = reinterpret_cast<int*>(runs + p.rois * (p.pooled_height + p.pooled_width));
  }
  static size_t bytes(const PsRoiParams& p) {
    const Tables none(nullptr, p);
    return size_t(p.rois) *
           (none.slots * sizeof(Tap<A>) + (p.pooled_height + p.pooled_width) * sizeof(TapRun) + sizeof(int));
  }
};

// One thread for each bin along each axis.
template <class A>
__global__ void __launch_bounds__(kThreads)
    ps_roi_tables_kernel(const PsRoiParams p, const Rois rois, const Tables<A> tables) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, bins = p.pooled_height + p.pooled_width;
  if (i >= p.rois * bins) return;
  const int k = static_cast<int>(i / bins), q = static_cast<int>(i % bins);
  const int image = roi_image(rois, k, p.batch, p.spatial_scale);
  if (q == 0) tables.image[k] = image;
  TapRun run{0, 0, 0, -1};
  if (image >= 0) {
    const bool vertical = q < p.pooled_height;
    const int pooled = static_cast<int>(vertical ? p.pooled_height : p.pooled_width);
    const int bin = vertical ? q : q - static_cast<int>(p.pooled_height);
    const double low = rois.at(k, vertical ? 2 : 1), high = rois.at(k, vertical ? 4 : 3);
    // The bins of an inverted box run backwards.
    const int place = low > high && !p.average ? pooled - 1 - bin : bin, offset = vertical ? 0 : tables.slots_y;
    Tap<A>* taps = tables.taps + k * tables.slots;
    for_each_ps_tap(p, low, high, vertical, bin, [&](int pixel, double weight) {
      // A weight that vanishes in A must not turn an infinite pixel into NaN.
      if (static_cast<A>(weight) == A(0)) return;
      if (run.count == 0) {
        run.first = offset + 2 * place + pixel;
        run.low = pixel;
      }
      run.high = pixel;
      taps[run.first + run.count++] = {pixel, static_cast<A>(weight)};
    });
  }
  tables.runs[i] = run;
}

struct ForwardArgs {
  int64_t stride_n, stride_c, stride_h, stride_w;  // of the input, in elements
  int pooled_height, pooled_width, classes;
  int items, items_per_block;  // output elements of a RoI
  bool channels_last;          // of the output
};

template <class T>
__global__ void __launch_bounds__(kThreads, 8)
    ps_roi_forward_kernel(const ForwardArgs a, const Tables<acc_t<T>> tables, const T* __restrict__ input,
                          T* __restrict__ output) {
  using A = acc_t<T>;
  const int k = blockIdx.x, bins = a.pooled_height * a.pooled_width;
  const int image = tables.image[k];
  const Tap<A>* taps = tables.taps + k * tables.slots;
  const TapRun* runs = tables.runs + int64_t(k) * (a.pooled_height + a.pooled_width);
  const T* map = input + (image < 0 ? 0 : image * a.stride_n);
  T* out = output + int64_t(k) * a.items;
  const int begin = blockIdx.y * a.items_per_block, end = min(a.items, begin + a.items_per_block);
  for (int channel = begin + threadIdx.x; channel < end; channel += kThreads) {
    const int bin = channel % bins;
    A sum = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
    if (image >= 0) {
      const TapRun rows = runs[bin / a.pooled_width], columns = runs[a.pooled_height + bin % a.pooled_width];
      const T* plane = opaque(map + channel * a.stride_c);
      for (int i = 0; i < rows.count; ++i) {
        const Tap<A> row = taps[rows.first + i];
        const T* at = opaque(plane + row.pixel * a.stride_h);
        A line = A(0);
        for (int j = 0; j < columns.count; j += kLoadsInFlight) {
          A value[kLoadsInFlight], weight[kLoadsInFlight];
#pragma unroll
          for (int u = 0; u < kLoadsInFlight; ++u) {
            value[u] = weight[u] = A(0);
            if (j + u < columns.count) {
              const Tap<A> column = taps[columns.first + j + u];
              weight[u] = column.weight;
              value[u] = up(__ldg(at + column.pixel * a.stride_w));
            }
          }
#pragma unroll
          for (int u = 0; u < kLoadsInFlight; ++u) line = fused(weight[u], value[u], line);
        }
        sum = fused(row.weight, line, sum);
      }
    }
    out[a.channels_last ? bin * a.classes + channel / bins : channel] = down<T>(sum);
  }
}

struct BackwardArgs {
  int64_t stride_k, stride_c, stride_h, stride_w;  // of grad, in elements
  int64_t units;                                   // tiles of planes; classes run fastest, so that a block shares taps
  int rois, classes, height, width;
  int pooled_height, pooled_width;
  int tile_rows, tile_columns, tiles_y, tiles_x;
  bool channels_last;  // of grad_input
};

template <class T>
__global__ void __launch_bounds__(kThreads, 5)
    ps_roi_backward_kernel(const BackwardArgs a, const Tables<acc_t<T>> tables, const T* __restrict__ grad,
                           T* __restrict__ grad_input) {
  using A = acc_t<T>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // The warps of a block never wait for each other.
  const int64_t unit = int64_t(blockIdx.x) * kWarps + warp;
  if (unit >= a.units) return;
  A* sums = dynamic_smem<A>() + warp * (a.tile_rows * a.tile_columns);
  const int bins = a.pooled_height * a.pooled_width, tiles = a.tiles_y * a.tiles_x;
  const int class_ = static_cast<int>(unit % a.classes), bin = static_cast<int>(unit / a.classes % bins);
  const int64_t place = unit / (int64_t(a.classes) * bins);
  const int tile = static_cast<int>(place % tiles), image = static_cast<int>(place / tiles);
  const int ph = bin / a.pooled_width, pw = bin % a.pooled_width;
  const int y0 = tile / a.tiles_x * a.tile_rows, x0 = tile % a.tiles_x * a.tile_columns;
  const int rows = min(a.tile_rows, a.height - y0), columns = min(a.tile_columns, a.width - x0);
  for (int i = lane; i < rows * columns; i += 32) sums[i] = A(0);
  __syncwarp();
  const T* source = grad + class_ * a.stride_c + ph * a.stride_h + pw * a.stride_w;
  const int axis_bins = a.pooled_height + a.pooled_width;
  const int down_lane = lane / kLanesAcross, across_lane = lane % kLanesAcross;

  for (int begin = 0; begin < a.rois; begin += 32) {
    // A lane looks at one RoI.
    TapRun y{0, 0, 0, -1}, x{0, 0, 0, -1};
    A value = A(0);
    bool hit = false;
    if (lane < a.rois - begin && tables.image[begin + lane] == image) {
      const int64_t k = begin + lane;
      y = tables.runs[k * axis_bins + ph];
      x = tables.runs[k * axis_bins + a.pooled_height + pw];
      hit = y.low <= y.high && x.low <= x.high && y.low < y0 + rows && y.high >= y0 && x.low < x0 + columns &&
            x.high >= x0;
      if (hit) value = up(__ldg(source + k * a.stride_k));
    }
    for (unsigned hits = __ballot_sync(kFullWarp, hit); hits != 0; hits &= hits - 1) {
      const int from = __ffs(hits) - 1;
      const A g = __shfl_sync(kFullWarp, value, from);
      const int row_first = __shfl_sync(kFullWarp, y.first, from), row_count = __shfl_sync(kFullWarp, y.count, from);
      const int column_first = __shfl_sync(kFullWarp, x.first, from);
      const int column_count = __shfl_sync(kFullWarp, x.count, from);
      const Tap<A>* taps = tables.taps + (int64_t(begin) + from) * tables.slots;
      for (int j = across_lane; j < column_count; j += kLanesAcross) {
        const Tap<A> column = taps[column_first + j];
        const int cx = column.pixel - x0;
        if (cx < 0 || cx >= columns) continue;
        const A spread = column.weight * g;
        for (int i = down_lane; i < row_count; i += kLanesDown) {
          const Tap<A> row = taps[row_first + i];
          const int cy = row.pixel - y0;
          if (cy < 0 || cy >= rows) continue;
          A& sum = sums[cy * columns + cx];
          sum = fused(row.weight, spread, sum);
        }
      }
      __syncwarp();
    }
  }
  const int64_t channels = int64_t(a.classes) * bins, channel = int64_t(class_) * bins + bin;
  for (int r = 0; r < rows; ++r) {
    const int64_t pixel = int64_t(y0 + r) * a.width + x0;
    for (int c = lane; c < columns; c += 32) {
      const int64_t at = a.channels_last ? (int64_t(image) * a.height * a.width + pixel + c) * channels + channel
                                         : (image * channels + channel) * a.height * a.width + pixel + c;
      grad_input[at] = down<T>(sums[r * columns + c]);
    }
  }
}

// Numbers that the kernels hold in 32 bits.
bool fits(const PsRoiParams& p) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  return p.rois < kInt - 32 && p.batch < kInt && p.height < kInt / 8 && p.width < kInt / 8 &&
         p.pooled_height < kInt / 8 && p.pooled_width < kInt / 8 &&
         p.pooled_height * p.pooled_width <= kInt / (p.classes + 1);
}

template <class A>
cudaError_t fill_tables(const PsRoiParams& p, const Rois& rois, const Tables<A>& tables, cudaStream_t stream) {
  const int64_t blocks = ceil_div<int64_t>(p.rois * (p.pooled_height + p.pooled_width), kThreads);
  if (blocks > std::numeric_limits<int>::max()) return cudaErrorInvalidValue;
  return launch(ps_roi_tables_kernel<A>, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, p, rois, tables);
}

}  // namespace

size_t ps_roi_workspace(const PsRoiParams& p, bool data_are_double) {
  return data_are_double ? Tables<double>::bytes(p) : Tables<float>::bytes(p);
}

template <class T>
cudaError_t ps_roi_forward(const PsRoiParams& p, const T* input, const int64_t strides[4], const void* rois,
                           bool rois_are_double, T* output, bool output_channels_last, void* workspace,
                           cudaStream_t stream) {
  if (!fits(p)) return cudaErrorInvalidValue;
  const Tables<acc_t<T>> tables(workspace, p);
  const cudaError_t error = fill_tables(p, {rois, rois_are_double}, tables, stream);
  if (error != cudaSuccess) return error;
  ForwardArgs a{.stride_n = strides[0],
                .stride_c = strides[1],
                .stride_h = strides[2],
                .stride_w = strides[3],
                .pooled_height = int(p.pooled_height),
                .pooled_width = int(p.pooled_width),
                .classes = int(p.classes),
                .channels_last = output_channels_last};
  a.items = a.classes * a.pooled_height * a.pooled_width;
  const int64_t most = ceil_div<int64_t>(a.items, kThreads * kItemsPerThread), wanted = kBlocksWanted / p.rois;
  const int64_t blocks_per_roi = wanted < 1 ? 1 : wanted < most ? wanted : most;
  // Whole rounds of the block's threads: a round of a few items costs as much as a full one.
  a.items_per_block = int(ceil_div(ceil_div<int64_t>(a.items, blocks_per_roi), int64_t(kThreads))) * kThreads;
  const dim3 grid(unsigned(p.rois), unsigned(ceil_div(a.items, a.items_per_block)));
  return launch(ps_roi_forward_kernel<T>, grid, dim3(kThreads), 0, stream, a, tables, input, output);
}

template <class T>
cudaError_t ps_roi_backward(const PsRoiParams& p, const T* grad, const int64_t strides[4], const void* rois,
                            bool rois_are_double, T* grad_input, bool grad_input_channels_last, void* workspace,
                            cudaStream_t stream) {
  using A = acc_t<T>;
  if (!fits(p)) return cudaErrorInvalidValue;
  const Tables<A> tables(workspace, p);
  const cudaError_t error = fill_tables(p, {rois, rois_are_double}, tables, stream);
  if (error != cudaSuccess) return error;
  constexpr int kPixels = kTileBytes / int(sizeof(A));
  BackwardArgs a{.stride_k = strides[0],
                 .stride_c = strides[1],
                 .stride_h = strides[2],
                 .stride_w = strides[3],
                 .rois = int(p.rois),
                 .classes = int(p.classes),
                 .height = int(p.height),
                 .width = int(p.width),
                 .pooled_height = int(p.pooled_height),
                 .pooled_width = int(p.pooled_width),
                 .channels_last = grad_input_channels_last};
  a.tile_columns = a.width < kPixels ? a.width : kPixels;
  a.tile_rows = a.height < kPixels / a.tile_columns ? a.height : kPixels / a.tile_columns;
  a.tiles_y = ceil_div(a.height, a.tile_rows);
  a.tiles_x = ceil_div(a.width, a.tile_columns);
  a.units = p.batch * a.tiles_y * a.tiles_x * p.classes * p.pooled_height * p.pooled_width;
  const int64_t blocks = ceil_div<int64_t>(a.units, kWarps);
  if (blocks > std::numeric_limits<int>::max() || int64_t(a.tiles_y) * a.tiles_x > std::numeric_limits<int>::max())
    return cudaErrorInvalidValue;
  const size_t shared = size_t(kWarps) * a.tile_rows * a.tile_columns * sizeof(A);
  return launch(ps_roi_backward_kernel<T>, dim3(unsigned(blocks)), dim3(kThreads), shared, stream, a, tables, grad,
                grad_input);
}

#define INSTANTIATE(T)                                                                                               \
  template cudaError_t ps_roi_forward<T>(const PsRoiParams&, const T*, const int64_t*, const void*, bool, T*, bool,  \
                                         void*, cudaStream_t);                                                       \
  template cudaError_t ps_roi_backward<T>(const PsRoiParams&, const T*, const int64_t*, const void*, bool, T*, bool, \
                                          void*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
