// Rotated boxes as their intersection over union needs them: sines, halved sides and areas computed once a box.
#pragma once
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

}  // namespace structops
