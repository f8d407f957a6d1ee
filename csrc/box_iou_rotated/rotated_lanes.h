// One rotated box against many, a vector of them at a time; for kernel files that are compiled once per instruction set
// (foreach_isa.h), so without an include guard.

#include "box_iou_rotated/rotated_iou.h"
#include "common/cpu/vec.h"

inline void set_lane(RotatedBoxOf<Vec<double>>& boxes, int64_t lane, const RotatedBox& box) {
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
  const RotatedBoxOf<Vec<double>> mine{broadcast(a.x),   broadcast(a.y),          broadcast(a.cos),
                                       broadcast(a.sin), broadcast(a.half_width), broadcast(a.half_height),
                                       broadcast(a.area)};
  for (int64_t k = 0; k < n; k += kLanes<double>) {
    RotatedBoxOf<Vec<double>> other;
    for (int64_t l = 0; l < kLanes<double>; ++l) set_lane(other, l, boxes[index[std::min(k + l, n - 1)]]);
    store(out + k, rotated_iou(mine, other));
  }
}

// The bounds of one box, to be held against those of others.
class Reach {
 public:
  Reach(const RotatedBoxes& boxes, int64_t i)
      : x1_(broadcast(boxes.bounds(0)[i])),
        y1_(broadcast(boxes.bounds(1)[i])),
        x2_(broadcast(boxes.bounds(2)[i])),
        y2_(broadcast(boxes.bounds(3)[i])) {}

  // Bit l: the bounds of others[first + l] meet these.
  uint32_t meets(const RotatedBoxes& others, int64_t first) const {
    return bits(less_equal(x1_, load(others.bounds(2) + first)) & less_equal(load(others.bounds(0) + first), x2_) &
                less_equal(y1_, load(others.bounds(3) + first)) & less_equal(load(others.bounds(1) + first), y2_));
  }

 private:
  Vec<float> x1_, y1_, x2_, y2_;
};
