// One axis of one RoI as bins of weighted pixels: the definitions of both position-sensitive ops, on CPU and GPU alike.
#pragma once
#include "common/roi_axis.h"
#include "ps_roi_align/ps_roi.h"

namespace structops {

// Pool: a bin is the mean of the whole pixels that it touches. Its edges are ratios of integers and taken exactly: in
// floating point 7 * (n / 7) can be more than n, and the bin one pixel longer.
struct PsRoiPoolAxis {
  int64_t first, length;  // of the box, feature pixels
  int64_t pooled, extent;
  bool finite;

  STRUCTOPS_HOST_DEVICE PsRoiPoolAxis(double low, double high, double spatial_scale, int64_t pooled_, int64_t extent_)
      : pooled(pooled_), extent(extent_) {
    const double a = low * spatial_scale, b = high * spatial_scale;
    finite = RoiAxis::isfinite_(a) && RoiAxis::isfinite_(b);
    first = static_cast<int64_t>(round(RoiAxis::limit(finite ? a : 0.0)));
    length = static_cast<int64_t>(round(RoiAxis::limit(finite ? b : 0.0))) - first;
    if (length < 1) length = 1;
  }

  // The pixels of bin p: [begin, end). The map's last pixel is never among them: torchvision clips bins to it.
  STRUCTOPS_HOST_DEVICE void bin(int64_t p, int64_t& begin, int64_t& end) const {
    begin = clip(first + p * length / pooled);
    end = clip(first + ((p + 1) * length + pooled - 1) / pooled);
  }

 private:
  STRUCTOPS_HOST_DEVICE int64_t clip(int64_t edge) const {
    return edge < 0 ? 0 : (edge > extent - 1 ? extent - 1 : edge);
  }
};

// Calls visit(pixel, weight) for the taps of one bin of the box from low to high, in rising order of pixels.
// vertical: along the map's height. The box is finite.
template <class Visit>
STRUCTOPS_THIS_SIDE void for_each_ps_tap(const PsRoiParams& p, double low, double high, bool vertical, int64_t bin,
                                         Visit visit) {
  const int64_t pooled = vertical ? p.pooled_height : p.pooled_width, extent = vertical ? p.height : p.width;
  if (p.average) {
    int64_t begin, end;
    PsRoiPoolAxis(low, high, p.spatial_scale, pooled, extent).bin(bin, begin, end);
    for (int64_t pixel = begin; pixel < end; ++pixel)
      visit(static_cast<int>(pixel), 1.0 / static_cast<double>(end - begin));
    return;
  }
  const RoiAxis axis(low, high, p.spatial_scale, pooled, p.sampling_ratio, true, extent);
  int64_t first, last;
  axis.inside_range(bin, first, last);
  for_each_tap(axis, bin, first, last, visit);
}

}  // namespace structops
