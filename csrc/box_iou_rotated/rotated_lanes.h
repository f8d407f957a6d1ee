// Rotated boxes a vector at a time; for kernel files that are compiled once per instruction set (foreach_isa.h), so
// without an include guard.

#include "box_iou_rotated/rotated_iou.h"
#include "common/cpu/vec.h"
#include "common/sine_cosine.h"

using BoxLanes = RotatedBoxOf<Vec<double>>;

// Rounded down; |v| < 2^51.
inline Vec<double> floor_of(Vec<double> v) {
  const Vec<double> nearest = (v + 0x1.8p52) - 0x1.8p52;
  return nearest > v ? nearest - 1.0 : nearest;
}

// The values of common/rotation.h, a vector of them. What is not finite counts as 0.
inline void rotation_of(Vec<double> degrees, Vec<double>& cos, Vec<double>& sin) {
  Vec<double> turn = degrees;
  for (int64_t l = 0; l < kLanes<double>; ++l) {
    const double d = degrees[l];
    if (!(d > -360.0 && d < 360.0)) turn[l] = d - d == 0.0 ? std::fmod(d, 360.0) : 0.0;
  }
  const Vec<double> quarters = floor_of(turn / 90.0 + 0.5);
  Vec<double> s, c;
  sine_cosine((turn - 90.0 * quarters) * 0.017453292519943295, s, c);
  const Vec<double> quarter = quarters - 4.0 * floor_of(quarters * 0.25);  // 0 to 3
  const auto odd = (quarter == 1.0) | (quarter == 3.0);
  const Vec<double> x = odd ? s : c, y = odd ? c : s;
  cos = (quarter == 1.0) | (quarter == 2.0) ? -x : x;
  sin = quarter >= 2.0 ? -y : y;
}

// Boxes index[0..lanes) of boxes [.., 5].
inline BoxLanes read_boxes(const double* boxes, const int64_t* index) {
  Vec<double> column[5], cos, sin;
  for (int64_t l = 0; l < kLanes<double>; ++l)
    for (int c = 0; c < 5; ++c) column[c][l] = boxes[5 * index[l] + c];
  rotation_of(column[4], cos, sin);
  return rotated_box(column[0], column[1], column[2], column[3], column[4], cos, sin);
}

inline void set_lane(BoxLanes& boxes, int64_t lane, const RotatedBox& box) {
  boxes.x[lane] = box.x;
  boxes.y[lane] = box.y;
  boxes.cos[lane] = box.cos;
  boxes.sin[lane] = box.sin;
  boxes.half_width[lane] = box.half_width;
  boxes.half_height[lane] = box.half_height;
  boxes.area[lane] = box.area;
}

// out[k]: IoU of a with boxes[index[k]], k < n; up to a vector more is written.
inline void iou_of(const RotatedBox& a, const RotatedBox* boxes, const uint32_t* index, int64_t n, double* out) {
  const BoxLanes mine{broadcast(a.x),          broadcast(a.y),           broadcast(a.cos), broadcast(a.sin),
                      broadcast(a.half_width), broadcast(a.half_height), broadcast(a.area)};
  for (int64_t k = 0; k < n; k += kLanes<double>) {
    BoxLanes other;
    for (int64_t l = 0; l < kLanes<double>; ++l) set_lane(other, l, boxes[index[std::min(k + l, n - 1)]]);
    store(out + k, rotated_iou(mine, other));
  }
}

// The bounds of one box, to be held against those of others.
class Reach {
 public:
  Reach(const BoundsColumns& bounds, int64_t i)
      : x1_(broadcast(bounds.at[0][i])),
        y1_(broadcast(bounds.at[1][i])),
        x2_(broadcast(bounds.at[2][i])),
        y2_(broadcast(bounds.at[3][i])) {}

  // Bit l: the bounds of others[first + l] meet these.
  uint32_t meets(const BoundsColumns& others, int64_t first) const {
    return bits(less_equal(x1_, load(others.at[2] + first)) & less_equal(load(others.at[0] + first), x2_) &
                less_equal(y1_, load(others.at[3] + first)) & less_equal(load(others.at[1] + first), y2_));
  }

 private:
  Vec<float> x1_, y1_, x2_, y2_;
};
