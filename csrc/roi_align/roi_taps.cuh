// Regions of interest on the GPU: reading a box, and its bins as weighted pixels.
//
// Averaged bilinear sampling factors into one weight per row and one per column of the map, so a
// bin is a short list of taps along each axis, and two samples that share a pixel share its tap
// (two samples a bin touch 3 pixels, not 4, as long as they are less than a pixel apart).
#pragma once
#include "common/cuda/device.cuh"
#include "common/roi_axis.h"
#include "roi_align/roi_align.h"

namespace structops::cuda {

struct Rois {
  const void* data;  // [K, 5] (batch index, x1, y1, x2, y2), dense
  bool is_double;    // else float

  __device__ __forceinline__ double at(int k, int i) const {
    const int64_t e = int64_t(k) * 5 + i;
    return is_double ? static_cast<const double*>(data)[e] : static_cast<double>(static_cast<const float*>(data)[e]);
  }
};

// The image of RoI k; -1 when the index is out of range or a number is not finite.
template <class Params>
__device__ __forceinline__ int roi_image(const Rois& rois, int k, const Params& p) {
  const double index = rois.at(k, 0);
  bool valid = index >= 0.0 && index < static_cast<double>(p.batch);
#pragma unroll
  for (int i = 1; i < 5; ++i) {
    const double pixels = rois.at(k, i) * p.spatial_scale;
    valid &= pixels - pixels == 0.0;
  }
  return valid ? static_cast<int>(index) : -1;
}

__device__ __forceinline__ RoiAxis roi_axis(const Rois& rois, int k, bool vertical, const RoiAlignParams& p) {
  return RoiAxis(rois.at(k, vertical ? 2 : 1), rois.at(k, vertical ? 4 : 3), p.spatial_scale,
                 vertical ? p.pooled_height : p.pooled_width, p.sampling_ratio, p.aligned,
                 vertical ? p.height : p.width);
}

// Samples [first, last) of bin p, less those surely outside [low, high] (in feature pixels).
__device__ __forceinline__ void samples_between(const RoiAxis& axis, int64_t p, double low, double high, int64_t& first,
                                                int64_t& last) {
  if (last - first <= 4 || axis.bin == 0.0) return;
  const double per_pixel = static_cast<double>(axis.samples) / axis.bin;
  const double base = axis.start + static_cast<double>(p) * axis.bin;
  const double a = (low - base) * per_pixel - 0.5, b = (high - base) * per_pixel - 0.5;
  const double f = static_cast<double>(first), l = static_cast<double>(last);
  // Two samples of slack for rounding.
  const double lower = floor(a < b ? a : b) - 2.0, upper = ceil(a < b ? b : a) + 3.0;
  first = static_cast<int64_t>(lower < f ? f : (lower > l ? l : lower));
  last = static_cast<int64_t>(upper < f ? f : (upper > l ? l : upper));
}

// Calls visit(pixel, weight) for the taps of bin p in rising order of pixels, from samples
// [first, last). Taps of one pixel are merged in double.
template <class Visit>
__device__ __forceinline__ void for_each_tap(const RoiAxis& axis, int64_t p, int64_t first, int64_t last, Visit visit) {
  const double share = 1.0 / static_cast<double>(axis.samples);
  int64_t pixel = -2;
  double here = 0.0, next = 0.0;
  for (int64_t i = first; i < last; ++i) {
    // An inverted box runs backwards; walk it so that positions rise.
    const RoiSample s = axis.sample(p, axis.bin < 0.0 ? first + last - 1 - i : i);
    if (!s.inside) continue;
    if (s.low != pixel) {
      if (pixel >= 0) visit(static_cast<int>(pixel), here * share);
      const bool adjacent = s.low == pixel + 1;
      if (!adjacent && next > 0.0) visit(static_cast<int>(pixel + 1), next * share);
      here = adjacent ? next : 0.0;
      next = 0.0;
      pixel = s.low;
    }
    here += 1.0 - s.fraction;
    next += s.fraction;
  }
  if (pixel >= 0) visit(static_cast<int>(pixel), here * share);
  if (next > 0.0) visit(static_cast<int>(pixel + 1), next * share);
}

template <class A>
struct alignas(2 * sizeof(A)) Tap {
  int pixel;
  A weight;
};

struct TapRange {
  int first, count;
};

// Upper bound on the taps of one axis over all bins, whatever the box.
inline int64_t tap_capacity(int64_t pooled, int64_t sampling_ratio, int64_t extent) {
  // The pixel spans of neighbouring bins overlap by at most two, plus one for rounding.
  const int64_t spans = extent + 3 * pooled;
  if (sampling_ratio <= 0 || sampling_ratio > spans) return spans;
  const int64_t samples = 2 * sampling_ratio * pooled;
  return samples < spans ? samples : spans;
}

// The taps of one RoI along both axes, in dynamic shared memory.
template <class A>
struct TapTables {
  Tap<A>*row_taps, *column_taps;  // [capacity_y], [capacity_x]: see tap_capacity
  TapRange *rows, *columns;       // [PH], [PW]; columns follow rows

  static size_t bytes(const RoiAlignParams& p, int64_t capacity_y, int64_t capacity_x) {
    return size_t(capacity_y + capacity_x) * sizeof(Tap<A>) +
           size_t(p.pooled_height + p.pooled_width) * sizeof(TapRange);
  }
  __device__ __forceinline__ TapTables(const RoiAlignParams& p, int capacity_y, int capacity_x)
      : row_taps(dynamic_smem<Tap<A>>()),
        column_taps(row_taps + capacity_y),
        rows(reinterpret_cast<TapRange*>(column_taps + capacity_x)),
        columns(rows + p.pooled_height) {}

  // Fills them for RoI k; returns its image, or -1 when its output is NaN. Called by the whole
  // block. A thread takes one bin of either axis, so that the two run side by side.
  __device__ __forceinline__ int fill(const RoiAlignParams& p, const Rois& rois, int k, int capacity_y,
                                      int capacity_x) const {
    const int image = roi_image(rois, k, p);
    if (image < 0) return -1;
    const int height = static_cast<int>(p.pooled_height), bins = height + static_cast<int>(p.pooled_width);
    bool large = false;  // no room for two taps a sample in every bin
    for (int q = threadIdx.x; q < bins; q += blockDim.x) {
      const RoiAxis axis = roi_axis(rois, k, q < height, p);
      const int64_t room = q < height ? capacity_y : capacity_x, pooled = q < height ? height : bins - height;
      large |= axis.samples > room || 2 * axis.samples * pooled > room;
    }
    large = __syncthreads_or(large);
    if (large) {  // then each bin gets the pixels from its first to its last sample
      for (int q = threadIdx.x; q < bins; q += blockDim.x)
        rows[q].count = tap_span(roi_axis(rois, k, q < height, p), q < height ? q : q - height);
      __syncthreads();
      for (int q = threadIdx.x; q < bins; q += blockDim.x) {
        int first = 0;
        for (int r = q < height ? 0 : height; r < q; ++r) first += rows[r].count;
        rows[q].first = first;
      }
      __syncthreads();
    }
    for (int q = threadIdx.x; q < bins; q += blockDim.x) {
      const bool vertical = q < height;
      const RoiAxis axis = roi_axis(rois, k, vertical, p);
      const int bin = vertical ? q : q - height;
      Tap<A>* taps = vertical ? row_taps : column_taps;
      const int capacity = vertical ? capacity_y : capacity_x;
      const int begin = large ? rows[q].first : bin * 2 * static_cast<int>(axis.samples);
      int64_t first, last;
      axis.inside_range(bin, first, last);
      int n = begin;
      for_each_tap(axis, bin, first, last, [&](int pixel, double weight) {
        // A weight that vanishes in A must not turn an infinite pixel into NaN.
        if (n < capacity && static_cast<A>(weight) != A(0)) taps[n++] = {pixel, static_cast<A>(weight)};
      });
      rows[q] = {begin, n - begin};
    }
    __syncthreads();
    return image;
  }

 private:
  // Pixels from the first to the last tap of bin p.
  __device__ __forceinline__ static int tap_span(const RoiAxis& axis, int64_t p) {
    int64_t first, last;
    axis.inside_range(p, first, last);
    while (first < last && !axis.sample(p, first).inside) ++first;
    while (first < last && !axis.sample(p, last - 1).inside) --last;
    if (first >= last) return 0;
    const int64_t d = axis.sample(p, last - 1).low - axis.sample(p, first).low;
    return static_cast<int>(d < 0 ? -d : d) + 2;
  }
};

}  // namespace structops::cuda
