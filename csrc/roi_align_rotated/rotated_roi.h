// A rotated region of interest: where it samples the feature map. The definition that the kernels share, on CPU and
// GPU alike; structops/reference/roi_align_rotated.py and the Triton kernels follow it operation by operation.
//
// Double throughout: a sample that lies on the map's edge must be on the same side everywhere.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/roi_axis.h"
#include "common/rotation.h"
#include "roi_align/roi_align.h"

namespace structops {

// A rectangle of the map that positions are compared with, borders included.
struct RoiWindow {
  double x0, x1, y0, y1;
};

// Samples [y0, y1) x [x0, x1) of a bin.
struct SampleRange {
  int64_t y0, y1, x0, x1;
  STRUCTOPS_HOST_DEVICE int64_t count() const { return y1 > y0 && x1 > x0 ? (y1 - y0) * (x1 - x0) : 0; }
};

// Bins [y0, y1) x [x0, x1).
struct BinRange {
  int64_t y0, y1, x0, x1;
};

// Pixels [x0, x1] x [y0, y1]; none where x0 > x1.
struct PixelBox {
  int64_t x0, x1, y0, y1;
};

// One side of the box, in its own coordinates: the centre is 0.
struct LocalAxis {
  double start, bin;  // feature pixels; bin may be negative (inverted box, aligned = true)
  int64_t samples;    // per bin; 0: the bin is empty

  STRUCTOPS_HOST_DEVICE static LocalAxis of(double length, int64_t pooled, int64_t sampling_ratio) {
    LocalAxis axis{-0.5 * length, length / static_cast<double>(pooled), sampling_ratio};
    if (sampling_ratio <= 0) axis.samples = static_cast<int64_t>(ceil(axis.bin));
    if (axis.samples < 0) axis.samples = 0;
    return axis;
  }
  STRUCTOPS_HOST_DEVICE double at(int64_t p, int64_t i) const {
    return start + static_cast<double>(p) * bin + (static_cast<double>(i) + 0.5) * bin / static_cast<double>(samples);
  }
  // The samples of bin p that can lie in [low, high]: [first, last).
  STRUCTOPS_HOST_DEVICE void samples_in(int64_t p, double low, double high, int64_t& first, int64_t& last) const {
    first = 0;
    last = samples;
    const double step = bin / static_cast<double>(samples), base = start + static_cast<double>(p) * bin;
    if (samples <= 2 || step == 0.0) return;
    range((low - base) / step - 0.5, (high - base) / step - 0.5, samples, first, last);
  }
  // The bins with samples that can lie in [low, high].
  STRUCTOPS_HOST_DEVICE void bins_in(int64_t pooled, double low, double high, int64_t& first, int64_t& last) const {
    first = 0;
    last = pooled;
    if (bin != 0.0) range((low - start) / bin, (high - start) / bin, pooled, first, last);
  }

 private:
  // The integers of [0, n) between a and b in either order, and one more at each end for rounding.
  STRUCTOPS_HOST_DEVICE static void range(double a, double b, int64_t n, int64_t& first, int64_t& last) {
    const double lower = floor(a < b ? a : b), upper = ceil(a < b ? b : a) + 1.0, most = static_cast<double>(n);
    first = static_cast<int64_t>(lower < 0.0 ? 0.0 : (lower > most ? most : lower));
    last = static_cast<int64_t>(upper < 0.0 ? 0.0 : (upper > most ? most : upper));
  }
};

struct RotatedRoi {
  double center_x, center_y;  // feature pixels
  double cos, sin;
  LocalAxis x, y;
  bool finite;  // false: the output of this RoI is NaN

  // box (centre x, centre y, width, height, degrees), image pixels. Positive angles turn counter-clockwise as seen on
  // the screen, with y down, unless `clockwise`.
  STRUCTOPS_HOST_DEVICE static RotatedRoi of(const RoiAlignParams& p, bool clockwise, double box_x, double box_y,
                                             double width, double height, double degrees) {
    const double offset = p.aligned ? 0.5 : 0.0;
    const double x = box_x * p.spatial_scale - offset, y = box_y * p.spatial_scale - offset;
    const double w = width * p.spatial_scale, h = height * p.spatial_scale;
    RotatedRoi roi;
    roi.finite = x - x == 0.0 && y - y == 0.0 && w - w == 0.0 && h - h == 0.0 && degrees - degrees == 0.0;
    const Rotation turn = rotation(roi.finite ? degrees : 0.0);
    roi.center_x = limit(roi.finite ? x : 0.0);
    roi.center_y = limit(roi.finite ? y : 0.0);
    roi.cos = turn.cos;
    roi.sin = clockwise ? -turn.sin : turn.sin;
    roi.x = LocalAxis::of(length(roi.finite ? w : 0.0, p.aligned), p.pooled_width, p.sampling_ratio);
    roi.y = LocalAxis::of(length(roi.finite ? h : 0.0, p.aligned), p.pooled_height, p.sampling_ratio);
    return roi;
  }

  STRUCTOPS_HOST_DEVICE bool empty() const { return !finite || x.samples == 0 || y.samples == 0; }

  // Where the local point (along the width, along the height) lies on the map.
  STRUCTOPS_HOST_DEVICE double map_x(double along_x, double along_y) const {
    return along_y * sin + along_x * cos + center_x;
  }
  STRUCTOPS_HOST_DEVICE double map_y(double along_x, double along_y) const {
    return along_y * cos - along_x * sin + center_y;
  }

  // The local rectangle around a window of the map. A thousandth of a pixel of slack: positions have 22 fractional
  // bits at least.
  STRUCTOPS_HOST_DEVICE RoiWindow local(const RoiWindow& window) const {
    const double mx = 0.5 * (window.x0 + window.x1) - center_x, my = 0.5 * (window.y0 + window.y1) - center_y;
    const double hx = 0.5 * (window.x1 - window.x0), hy = 0.5 * (window.y1 - window.y0);
    const double c = cos < 0.0 ? -cos : cos, s = sin < 0.0 ? -sin : sin;
    const double at_x = mx * cos - my * sin, at_y = mx * sin + my * cos;
    const double half_x = hx * c + hy * s + 1e-3, half_y = hx * s + hy * c + 1e-3;
    return {at_x - half_x, at_x + half_x, at_y - half_y, at_y + half_y};
  }
  // All samples of a bin inside a window are in this range, and some others. window: as local() gives it.
  STRUCTOPS_HOST_DEVICE SampleRange samples_in(int64_t ph, int64_t pw, const RoiWindow& local_window) const {
    SampleRange r;
    x.samples_in(pw, local_window.x0, local_window.x1, r.x0, r.x1);
    y.samples_in(ph, local_window.y0, local_window.y1, r.y0, r.y1);
    return r;
  }
  STRUCTOPS_HOST_DEVICE BinRange bins_in(const RoiAlignParams& p, const RoiWindow& local_window) const {
    BinRange r;
    x.bins_in(p.pooled_width, local_window.x0, local_window.x1, r.x0, r.x1);
    y.bins_in(p.pooled_height, local_window.y0, local_window.y1, r.y0, r.y1);
    return r;
  }

  // Pixels around the map's part of a local rectangle given by its middle and half its sides.
  STRUCTOPS_HOST_DEVICE PixelBox pixels(double along_x, double along_y, double half_x, double half_y, int64_t width,
                                        int64_t height) const {
    half_x = half_x < 0.0 ? -half_x : half_x;
    half_y = half_y < 0.0 ? -half_y : half_y;
    const double c = cos < 0.0 ? -cos : cos, s = sin < 0.0 ? -sin : sin;
    PixelBox box;
    const bool across = reach(map_x(along_x, along_y), half_y * s + half_x * c, width, box.x0, box.x1);
    const bool down = reach(map_y(along_x, along_y), half_y * c + half_x * s, height, box.y0, box.y1);
    if (!across || !down) box.x0 = 0, box.x1 = -1;
    return box;
  }
  // Pixels that the RoI can touch.
  STRUCTOPS_HOST_DEVICE PixelBox pixels(int64_t width, int64_t height) const {
    if (empty()) return {0, -1, 0, -1};
    return pixels(0.0, 0.0, x.start, y.start, width, height);
  }

 private:
  STRUCTOPS_HOST_DEVICE static double limit(double v) {
    return v < -kRoiCoordinateLimit ? -kRoiCoordinateLimit : (v > kRoiCoordinateLimit ? kRoiCoordinateLimit : v);
  }
  STRUCTOPS_HOST_DEVICE static double length(double v, bool aligned) {
    v = limit(v);
    return !aligned && v < 1.0 ? 1.0 : v;
  }
  STRUCTOPS_HOST_DEVICE static bool reach(double middle, double half, int64_t extent, int64_t& first, int64_t& last) {
    const double low = middle - half - 1e-3, high = middle + half + 1e-3, end = static_cast<double>(extent);
    first = static_cast<int64_t>(low < 0.0 ? 0.0 : (low > end - 1.0 ? end - 1.0 : floor(low)));
    last = static_cast<int64_t>(high < 0.0 ? 0.0 : (high > end - 2.0 ? end - 1.0 : floor(high) + 1.0));
    return high >= -1.0 && low <= end;
  }
};

}  // namespace structops
