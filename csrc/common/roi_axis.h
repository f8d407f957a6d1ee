// Where a region of interest samples one axis of the feature map: the definition that every RoI
// kernel shares, on CPU and GPU alike.
//
// All of it is double precision, whatever the storage. A float coordinate at 300 px has a spacing
// of 3e-5 px, which moves a sample enough to cost 2e-5 of the map's scale, and can flip the two
// decisions taken here (how many samples, inside or outside). There are only some 28 samples a
// RoI, so it costs nothing against the channels that follow.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace structops {

// Finite coordinates are limited to this many feature pixels either side of the origin. No map is
// that large, and below it sample counts fit an int64 and positions keep 22 fractional bits.
constexpr double kRoiCoordinateLimit = 1073741824.0;  // 2^30

struct RoiSample {
  int64_t low;      // the pixel at or below the sample
  double fraction;  // weight of pixel low + 1; 0 when that pixel is not needed (or does not exist)
  bool inside;      // a sample outside [-1, extent] counts as zero
};

// The pixels of an axis of this many between which a coordinate lies.
STRUCTOPS_HOST_DEVICE RoiSample roi_sample(double at, int64_t extent) {
  if (at < -1.0 || at > static_cast<double>(extent)) return {0, 0.0, false};
  if (at < 0.0) at = 0.0;
  const int64_t low = static_cast<int64_t>(at);
  if (low >= extent - 1) return {extent - 1, 0.0, true};
  return {low, at - static_cast<double>(low), true};
}

struct RoiAxis {
  double start, bin;  // feature pixels; bin may be negative (inverted box, aligned = true)
  int64_t samples;    // per bin; 0: the bin is empty and its value 0
  int64_t extent;     // length of the map along this axis
  bool finite;        // false: the output of this RoI is NaN

  // low, high: box edges in image pixels. sampling_ratio <= 0: as many as the bin is long.
  STRUCTOPS_HOST_DEVICE RoiAxis(double low, double high, double spatial_scale, int64_t pooled, int64_t sampling_ratio,
                                bool aligned, int64_t extent_)
      : extent(extent_) {
    const double offset = aligned ? 0.5 : 0.0;
    double first = low * spatial_scale - offset, last = high * spatial_scale - offset;
    finite = isfinite_(first) && isfinite_(last);
    first = limit(finite ? first : 0.0);
    last = limit(finite ? last : 0.0);
    double length = last - first;
    if (!aligned && length < 1.0) length = 1.0;  // the original, unaligned RoI Align
    start = first;
    bin = length / static_cast<double>(pooled);
    samples = sampling_ratio > 0 ? sampling_ratio : static_cast<int64_t>(ceil(bin));
    if (samples < 0) samples = 0;
  }

  STRUCTOPS_HOST_DEVICE RoiSample sample(int64_t p, int64_t i) const {
    return roi_sample(
        start + static_cast<double>(p) * bin + (static_cast<double>(i) + 0.5) * bin / static_cast<double>(samples),
        extent);
  }

  // The samples of bin p that can lie inside: [first, last). A box of 1e9 px on a map of 100 would
  // otherwise cost 1e9 steps. Two extra at each end absorb rounding; sample() has the last word.
  STRUCTOPS_HOST_DEVICE void inside_range(int64_t p, int64_t& first, int64_t& last) const {
    first = 0;
    last = samples;
    if (samples <= 4 || bin == 0.0) return;
    const double step = bin / static_cast<double>(samples);
    const double base = start + static_cast<double>(p) * bin;
    const double a = (-1.0 - base) / step - 0.5, b = (static_cast<double>(extent) - base) / step - 0.5;
    const double lower = floor(a < b ? a : b) - 2.0, upper = ceil(a < b ? b : a) + 3.0;
    const double n = static_cast<double>(samples);
    first = static_cast<int64_t>(lower < 0.0 ? 0.0 : (lower > n ? n : lower));
    last = static_cast<int64_t>(upper < 0.0 ? 0.0 : (upper > n ? n : upper));
  }

  STRUCTOPS_HOST_DEVICE static bool isfinite_(double v) { return v - v == 0.0; }
  STRUCTOPS_HOST_DEVICE static double limit(double v) {
    return v < -kRoiCoordinateLimit ? -kRoiCoordinateLimit : (v > kRoiCoordinateLimit ? kRoiCoordinateLimit : v);
  }
};

// Calls visit(pixel, weight) for the taps of bin p in rising order of pixels, from samples
// [first, last). Taps of one pixel are merged in double.
template <class Visit>
STRUCTOPS_THIS_SIDE void for_each_tap(const RoiAxis& axis, int64_t p, int64_t first, int64_t last, Visit visit) {
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

}  // namespace structops
