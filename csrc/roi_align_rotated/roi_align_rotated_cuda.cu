// RoI Align of rotated boxes, forward on the GPU.
//
// One kernel computes what a RoI is (sines, sizes) once. In the second a block takes a RoI (or a run of its bins),
// computes the samples of as many bins as fit its table in double, and shares them over all channels: a sample is an
// address and four weights. channels_last: a thread owns 16 bytes of channels of one bin, so a warp reads and writes
// 512 consecutive bytes. Contiguous: a thread owns four channels of one bin, its neighbours the neighbouring bins.
//
// Samples are not merged as on the CPU: of the 16 loads of 2 x 2 samples 5 meet a line that another has just brought
// into L1, and merging would have threads wait for each other.
#include <limits>

#include "common/cuda/device.cuh"
#include "roi_align_rotated/roi_align_rotated_cuda.h"
#include "roi_align_rotated/rotated_rois.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128;
// Blocks on a multiprocessor: 80 registers a thread hold the geometry in double beside the sums, 96 where they are
// eight, or where their loads are not vectors.
template <class T, int V>
constexpr int kBlocks = V == 1 || V == 8 ? 5 : 6;
constexpr int kTable = 512;              // samples
constexpr int64_t kBlocksWanted = 2048;  // with fewer RoIs than this, a RoI's bins are cut into several blocks
// Planes a thread takes of a contiguous map.
template <class T>
constexpr int kPlanes = sizeof(T) == 8 ? 2 : 4;

template <class A>
struct Sample {
  int64_t offset;  // of the pixel below, in elements
  A weight[4];     // of (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)
};

struct ForwardArgs {
  RoiAlignParams p;
  const RotatedRoi* rois;
  const int* image;
  int64_t stride_n, stride_c, stride_h, stride_w;  // of the input, in elements
  int groups, bins, bins_per_block;
};

__global__ void __launch_bounds__(kThreads)
    rotated_rois_kernel(const RoiAlignParams p, bool clockwise, const void* __restrict__ rows, bool rows_are_double,
                        RotatedRoi* __restrict__ rois, int4* __restrict__ pixels, int* __restrict__ image) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= p.rois) return;
  double row[6];
#pragma unroll
  for (int i = 0; i < 6; ++i)
    row[i] = rows_are_double ? static_cast<const double*>(rows)[k * 6 + i]
                             : static_cast<double>(static_cast<const float*>(rows)[k * 6 + i]);
  const RotatedRoi roi = RotatedRoi::of(p, clockwise, row[1], row[2], row[3], row[4], row[5]);
  const bool valid = roi.finite && row[0] >= 0.0 && row[0] < static_cast<double>(p.batch);
  const PixelBox box = roi.pixels(p.width, p.height);
  rois[k] = roi;
  pixels[k] = {static_cast<int>(box.x0), static_cast<int>(box.x1), static_cast<int>(box.y0), static_cast<int>(box.y1)};
  image[k] = valid ? static_cast<int>(row[0]) : -1;
}

// Sample (row, column) of bin (ph, pw).
template <class A>
__device__ __forceinline__ Sample<A> make_sample(const ForwardArgs& a, const RotatedRoi& roi, int ph, int pw,
                                                 int64_t row, int64_t column) {
  const double along_y = roi.y.at(ph, row), along_x = roi.x.at(pw, column);
  const RoiSample y = roi_sample(roi.map_y(along_x, along_y), a.p.height);
  const RoiSample x = roi_sample(roi.map_x(along_x, along_y), a.p.width);
  const double share =
      y.inside && x.inside ? 1.0 / (static_cast<double>(roi.x.samples) * static_cast<double>(roi.y.samples)) : 0.0;
  const double upper = (1.0 - y.fraction) * share, lower = y.fraction * share;
  return {y.low * a.stride_h + x.low * a.stride_w,
          {static_cast<A>(upper * (1.0 - x.fraction)), static_cast<A>(upper * x.fraction),
           static_cast<A>(lower * (1.0 - x.fraction)), static_cast<A>(lower * x.fraction)}};
}

// An item is a bin and a group of V channels. Packed: input [N, H, W, groups, V] and output [K, PH, PW, groups, V],
// V channels one access. Otherwise both [N or K, C, ., .], V planes.
template <class T, int V, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, kBlocks<T, V>)
    rotated_forward_kernel(const ForwardArgs a, const T* __restrict__ input, T* __restrict__ output) {
  using A = acc_t<T>;
  __shared__ Sample<A> table[kTable];
  __shared__ SampleRange range;  // of the round's bins
  const int k = blockIdx.x, image = a.image[k];
  const int begin = blockIdx.y * a.bins_per_block, end = min(a.bins, begin + a.bins_per_block);
  const int channels = static_cast<int>(a.p.channels), pooled_width = static_cast<int>(a.p.pooled_width);
  const int64_t samples = image < 0 ? 0 : a.rois[k].y.samples * a.rois[k].x.samples;  // each below 2^31
  const int bins_per_round = samples > kTable ? 1 : kTable / static_cast<int>(samples < 1 ? 1 : samples);
  const T* base = input + (image < 0 ? 0 : image * a.stride_n);

  for (int bin = begin; bin < end; bin += bins_per_round) {
    const int bins = min(bins_per_round, end - bin), items = bins * a.groups;
    __syncthreads();  // before the range and the table are overwritten
    if (threadIdx.x == 0) {
      const RotatedRoi roi = a.rois[k];
      range = {0, roi.y.samples, 0, roi.x.samples};
      if (samples > kTable) {  // one bin a round: of its samples those that can be inside
        const RoiWindow window{-1.0, static_cast<double>(a.p.width), -1.0, static_cast<double>(a.p.height)};
        range = roi.samples_in(bin / pooled_width, bin % pooled_width, roi.local(window));
      }
    }
    __syncthreads();
    const int64_t count = image < 0 ? 0 : range.count();
    for (int pass = 0; pass < items; pass += kThreads) {
      const int item = pass + threadIdx.x;
      const int group = kChannelsLast ? item % a.groups : item / bins;
      const int local_bin = kChannelsLast ? item / a.groups : item % bins;
      const bool active = item < items;
      A sum[V];
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] = image < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
      for (int64_t first = 0; first < count; first += kTable) {
        const int n = static_cast<int>(count - first < kTable ? count - first : kTable);
        if (pass == 0 || count > kTable) {
          __syncthreads();  // before the table is overwritten
          const RotatedRoi roi = a.rois[k];
#pragma unroll 1
          for (int i = threadIdx.x; i < n * bins; i += kThreads) {
            const int b = bin + i / n;
            // In double: exact here, and a division of 64-bit integers takes twice the registers.
            const double s = static_cast<double>(first + i % n), across = static_cast<double>(range.x1 - range.x0);
            const double row = floor(s / across), column = s - row * across;
            table[i] = make_sample<A>(a, roi, b / pooled_width, b % pooled_width, range.y0 + static_cast<int64_t>(row),
                                      range.x0 + static_cast<int64_t>(column));
          }
          __syncthreads();
        }
        if (!active) continue;
        const Sample<A>* samples_of_bin = table + local_bin * n;
#pragma unroll 1  // four loads in flight are enough, and more cost registers
        for (int s = 0; s < n; ++s) {
          const Sample<A> sample = samples_of_bin[s];
          if constexpr (kChannelsLast) {
            const T* at = base + sample.offset + group * V;
            // A pixel of weight zero is not read: it may be infinite, or not there.
            Pack<T, V> pack[4];
#pragma unroll
            for (int t = 0; t < 4; ++t)
              if (sample.weight[t] != A(0))
                pack[t] = load_pack<T, V>(at + (t / 2 ? a.stride_h : 0) + (t % 2 ? a.stride_w : 0));
#pragma unroll
            for (int t = 0; t < 4; ++t) {
              if (sample.weight[t] != A(0)) {
#pragma unroll
                for (int v = 0; v < V; ++v) sum[v] = fused(sample.weight[t], up(pack[t], v), sum[v]);
              }
            }
          } else {
#pragma unroll
            for (int v = 0; v < V; ++v) {
              // Past the last channel the last one is read again and not written.
              const T* at = base + sample.offset + int64_t(min(group * V + v, channels - 1)) * a.stride_c;
#pragma unroll
              for (int t = 0; t < 4; ++t)
                if (sample.weight[t] != A(0))
                  sum[v] = fused(sample.weight[t], up(__ldg(at + (t / 2 ? a.stride_h : 0) + (t % 2 ? a.stride_w : 0))),
                                 sum[v]);
            }
          }
        }
      }
      if (!active) continue;
      if constexpr (kChannelsLast) {
        Pack<T, V> pack;
#pragma unroll
        for (int v = 0; v < V; ++v) pack.value[v] = down<T>(sum[v]);
        reinterpret_cast<Pack<T, V>*>(output)[(int64_t(k) * a.bins + bin + local_bin) * a.groups + group] = pack;
      } else {
        T* out = output + (int64_t(k) * channels + group * V) * a.bins + bin + local_bin;
#pragma unroll
        for (int v = 0; v < V; ++v)
          if (group * V + v < channels) out[int64_t(v) * a.bins] = down<T>(sum[v]);
      }
    }
  }
}

}  // namespace

size_t roi_align_rotated_workspace(const RoiAlignParams& p) { return RotatedRois::bytes(p.rois); }

cudaError_t roi_align_rotated_prepare(const RoiAlignParams& p, bool clockwise, const void* rois, bool rois_are_double,
                                      const RotatedRois& prepared, cudaStream_t stream) {
  return launch(rotated_rois_kernel, dim3(unsigned(ceil_div<int64_t>(p.rois, kThreads))), dim3(kThreads), 0, stream, p,
                clockwise, rois, rois_are_double, prepared.roi, prepared.bounds.pixels, prepared.bounds.image);
}

template <class T>
cudaError_t roi_align_rotated_forward(const RoiAlignParams& p, bool clockwise, const T* input, const int64_t strides[4],
                                      const void* rois, bool rois_are_double, T* output, bool channels_last,
                                      void* workspace, cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  const int64_t bins = p.pooled_height * p.pooled_width;
  if (p.rois > kInt || p.height > kInt / 4 || p.width > kInt / 4 || p.batch > kInt || bins > kInt / 32 ||
      p.channels > kInt / (2 * kTable))
    return cudaErrorInvalidValue;
  const RotatedRois prepared(workspace, p.rois);
  const cudaError_t error = roi_align_rotated_prepare(p, clockwise, rois, rois_are_double, prepared, stream);
  if (error != cudaSuccess) return error;
  constexpr int64_t V = kPack<T>;
  const bool packed = channels_last && p.channels % V == 0 && strides[0] % V == 0 && strides[2] % V == 0 &&
                      strides[3] % V == 0 && reinterpret_cast<uintptr_t>(input) % 16 == 0 &&
                      reinterpret_cast<uintptr_t>(output) % 16 == 0;
  const int64_t planes = packed ? V : channels_last ? 1 : kPlanes<T>;
  const int64_t wanted = ceil_div(kBlocksWanted, p.rois), blocks = wanted < bins ? wanted : bins;
  const ForwardArgs a{.p = p,
                      .rois = prepared.roi,
                      .image = prepared.bounds.image,
                      .stride_n = strides[0],
                      .stride_c = strides[1],
                      .stride_h = strides[2],
                      .stride_w = strides[3],
                      .groups = int(ceil_div(p.channels, planes)),
                      .bins = int(bins),
                      .bins_per_block = int(ceil_div(bins, blocks))};
  const auto kernel = !channels_last ? rotated_forward_kernel<T, kPlanes<T>, false>
                      : packed       ? rotated_forward_kernel<T, kPack<T>, true>
                                     : rotated_forward_kernel<T, 1, true>;
  const dim3 grid(unsigned(p.rois), unsigned(ceil_div(a.bins, a.bins_per_block)));
  return launch(kernel, grid, dim3(kThreads), 0, stream, a, input, output);
}

#define INSTANTIATE(T)                                                                                     \
  template cudaError_t roi_align_rotated_forward<T>(const RoiAlignParams&, bool, const T*, const int64_t*, \
                                                    const void*, bool, T*, bool, void*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
