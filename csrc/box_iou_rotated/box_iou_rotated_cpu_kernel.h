// IoU of rotated boxes, compiled once per instruction set (foreach_isa.h).

#include "box_iou_rotated/rotated_lanes.h"

// Columns taken at a time: their boxes and bounds stay in the L2 cache while rows pass.
constexpr int64_t kColumns = 2048;

// Rows [first, last) of the matrix.
template <class Out>
void iou_rows(const RotatedBoxes& a, const RotatedBoxes& b, int64_t first, int64_t last, Out* out) {
  uint32_t near[kColumns];
  double iou[kColumns + kLanes<double>];
  for (int64_t begin = 0; begin < b.size(); begin += kColumns) {
    const int64_t end = std::min(begin + kColumns, b.size());
    for (int64_t i = first; i < last; ++i) {
      Out* row = out + i * b.size();
      std::fill(row + begin, row + end, Out(0));
      const Reach reach(a, i);
      int64_t count = 0;
      for (int64_t j = begin; j < end; j += kLanes<float>) {
        for (uint32_t mask = reach.meets(b, j); mask != 0; mask &= mask - 1) near[count++] = j + std::countr_zero(mask);
      }
      iou_of(a[i], b.boxes(), near, count, iou);
      for (int64_t k = 0; k < count; ++k) row[near[k]] = static_cast<Out>(iou[k]);
    }
  }
}

// Pairs [first, last) of rows of a and b [.., 5].
template <class Out>
void iou_pairs(const double* a, const double* b, int64_t first, int64_t last, Out* out) {
  for (int64_t begin = first; begin < last; begin += kLanes<double>) {
    RotatedBoxOf<Vec<double>> pa, pb;
    for (int64_t l = 0; l < kLanes<double>; ++l) {
      const int64_t i = 5 * std::min(begin + l, last - 1);
      set_lane(pa, l, rotated_box(a[i], a[i + 1], a[i + 2], a[i + 3], a[i + 4]));
      set_lane(pb, l, rotated_box(b[i], b[i + 1], b[i + 2], b[i + 3], b[i + 4]));
    }
    const Vec<double> iou = rotated_iou(pa, pb);
    for (int64_t l = 0; l < kLanes<double> && begin + l < last; ++l) out[begin + l] = static_cast<Out>(iou[l]);
  }
}
