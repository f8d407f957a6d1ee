// The bins of a region of interest along one axis of the feature map: the definition, on CPU and GPU alike.
//
// Corners are scaled and rounded in double; from there on all is integer, and exact. In floating point the last of 7
// bins over 29 pixels ends at ceil(7 * (29 / 7.0)) = 30.
#pragma once
#include "common/roi_axis.h"

namespace structops {

struct RoiBins {
  int64_t start, length;  // pixels; both corners belong to the box
  int64_t extent;         // length of the map along this axis
  bool finite;            // false: the output of this RoI is NaN

  // low, high: box edges in image pixels.
  STRUCTOPS_HOST_DEVICE RoiBins(double low, double high, double spatial_scale, int64_t extent_) : extent(extent_) {
    const double first = low * spatial_scale, last = high * spatial_scale;
    finite = first - first == 0.0 && last - last == 0.0;
    start = nearest(finite ? first : 0.0);
    length = nearest(finite ? last : 0.0) - start + 1;
    if (length < 1) length = 1;
  }

  // Pixels [first, last) of bin p, clipped to the map. No overflow: length is at most 2^31 + 1.
  STRUCTOPS_HOST_DEVICE void bin(int64_t p, int64_t pooled, int& first, int& last) const {
    first = clip(start + p * length / pooled);
    last = clip(start + ((p + 1) * length + pooled - 1) / pooled);
  }

 private:
  // Halves away from zero, limited as all coordinates are.
  STRUCTOPS_HOST_DEVICE static int64_t nearest(double v) {
    v = v < -kRoiCoordinateLimit ? -kRoiCoordinateLimit : (v > kRoiCoordinateLimit ? kRoiCoordinateLimit : v);
    return static_cast<int64_t>(round(v));
  }
  STRUCTOPS_HOST_DEVICE int clip(int64_t pixel) const {
    return static_cast<int>(pixel < 0 ? 0 : (pixel > extent ? extent : pixel));
  }
};

}  // namespace structops
