// Rotated boxes as their intersection over union needs them: sines, halved sides and areas computed once a box.
// structops/reference/box_iou_rotated.py is the definition; here and in the Triton kernels the same operations are done
// in the same order, all in double, so that every backend gives the same bits.
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
struct RotatedBoxOf {
  V x, y, cos, sin, half_width, half_height, area;
};
using RotatedBox = RotatedBoxOf<double>;

STRUCTOPS_HOST_DEVICE RotatedBox rotated_box(double x, double y, double width, double height, double degrees) {
  const bool finite = fabs(x) <= kRotatedLimit && fabs(y) <= kRotatedLimit && fabs(width) <= kRotatedLimit &&
                      fabs(height) <= kRotatedLimit && degrees - degrees == 0.0;
  const bool solid = finite && width > kRotatedSmallest && height > kRotatedSmallest;
  const Rotation turn = rotation(finite ? degrees : 0.0);
  RotatedBox box;
  box.x = finite ? x : 0.0;
  box.y = finite ? y : 0.0;
  box.cos = turn.cos;
  box.sin = turn.sin;
  box.half_width = solid ? 0.5 * width : 0.0;
  box.half_height = solid ? 0.5 * height : 0.0;
  box.area = solid ? width * height : (finite ? 0.0 : NAN);
  return box;
}

// An upright rectangle around a box, in float32: boxes whose bounds are apart have an IoU of exactly 0. The margin
// of a millionth of the box makes sure that the double arithmetic finds an axis that separates them too, and covers the
// rounding of the bounds themselves. Around a box that is not finite lies everything.
struct RotatedBounds {
  float x1, y1, x2, y2;
};

STRUCTOPS_HOST_DEVICE RotatedBounds rotated_bounds(const RotatedBox& b) {
  if (b.area != b.area) return {-INFINITY, -INFINITY, INFINITY, INFINITY};
  const double c = fabs(b.cos), s = fabs(b.sin);
  const double half_x = b.half_width * c + b.half_height * s, half_y = b.half_width * s + b.half_height * c;
  const double margin = 1e-6 * (half_x + half_y) + 1e-37;
  const double reach_x = half_x + margin + 5e-7 * (fabs(b.x) + half_x);
  const double reach_y = half_y + margin + 5e-7 * (fabs(b.y) + half_y);
  return {static_cast<float>(b.x - reach_x), static_cast<float>(b.y - reach_y), static_cast<float>(b.x + reach_x),
          static_cast<float>(b.y + reach_y)};
}

STRUCTOPS_HOST_DEVICE bool meet(const RotatedBounds& a, const RotatedBounds& b) {
  return a.x1 <= b.x2 && b.x1 <= a.x2 && a.y1 <= b.y2 && b.y1 <= a.y2;
}

}  // namespace structops
