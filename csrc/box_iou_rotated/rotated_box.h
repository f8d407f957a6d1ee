// Rotated boxes as their intersection over union needs them: sines, halved sides and areas computed once a box.
#pragma once
#include <cmath>

#include "common/rotation.h"

namespace structops {

// No float32 number is beyond these, and between them nothing overflows or underflows on the way to an IoU.
constexpr double kRotatedLimit = 1.6069380442589903e60;     // 2^200; a number beyond: the box is not finite
constexpr double kRotatedSmallest = 6.223015277861142e-61;  // 2^-200; a side that is not above: no area

// V: double, or a vector of doubles, a box in each lane. A box without area has sides of 0; the area of a box that is
// not finite is NaN, and so is every IoU with it.
template <class V>
struct alignas(alignof(V) > 16 ? alignof(V) : 16) RotatedBoxOf {
  V x, y, cos, sin, half_width, half_height, area;
};
using RotatedBox = RotatedBoxOf<double>;

// An upright rectangle around a box, in float32: boxes whose bounds are apart have an IoU of exactly 0.
struct alignas(16) RotatedBounds {
  float x1, y1, x2, y2;
};

STRUCTOPS_HOST_DEVICE bool meet(const RotatedBounds& a, const RotatedBounds& b) {
  return a.x1 <= b.x2 && b.x1 <= a.x2 && a.y1 <= b.y2 && b.y1 <= a.y2;
}

// An IoU is at most the smaller area over the larger. Compared by square roots, whose range float32 holds for longer:
// the IoU of two boxes is not above the threshold if the one's side is at most this share of the other's. A
// hundred-thousandth less, for all roundings.
inline float rotated_share(double iou_threshold) {
  return static_cast<float>(std::sqrt(iou_threshold < 1.0 ? iou_threshold : 1.0) * (1 - 1e-5));
}
// NaN, which excludes nothing, where float32 does not hold the area.
STRUCTOPS_HOST_DEVICE float rotated_side(double area) {
  const float side = sqrtf(static_cast<float>(area));
  return side > 1e-18f && side < 1e18f ? side : NAN;
}

}  // namespace structops
