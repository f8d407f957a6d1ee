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
      const Reach reach(a.bounds(), i);
      int64_t count = 0;
      for (int64_t j = begin; j < end; j += kLanes<float>) {
        for (uint32_t mask = reach.meets(b.bounds(), j); mask != 0; mask &= mask - 1)
          near[count++] = j + std::countr_zero(mask);
      }
      iou_of(a[i], b.data(), near, count, iou);
      for (int64_t k = 0; k < count; ++k) row[near[k]] = static_cast<Out>(iou[k]);
    }
  }
}

// Boxes [first, last) of order (or in their own order, where that is null) of rows [.., 5].
inline void prepare(const double* rows, const uint32_t* order, int64_t first, int64_t last, RotatedBox* out,
                    Bounds& out_bounds) {
  for (int64_t begin = first; begin < last; begin += kLanes<double>) {
    int64_t index[kLanes<double>];
    for (int64_t l = 0; l < kLanes<double>; ++l) {
      const int64_t i = std::min(begin + l, last - 1);
      index[l] = order == nullptr ? i : static_cast<int64_t>(order[i]);
    }
    const BoxLanes boxes = read_boxes(rows, index);
    const RotatedBoundsOf<Vec<double>> bounds = rotated_bounds(boxes);
    for (int64_t l = 0; l < kLanes<double> && begin + l < last; ++l) {
      out[begin + l] = {boxes.x[l],          boxes.y[l],           boxes.cos[l], boxes.sin[l],
                        boxes.half_width[l], boxes.half_height[l], boxes.area[l]};
      out_bounds.column(0)[begin + l] = static_cast<float>(bounds.x1[l]);
      out_bounds.column(1)[begin + l] = static_cast<float>(bounds.y1[l]);
      out_bounds.column(2)[begin + l] = static_cast<float>(bounds.x2[l]);
      out_bounds.column(3)[begin + l] = static_cast<float>(bounds.y2[l]);
    }
  }
}

// Pairs [first, last) of rows of a and b [.., 5].
template <class Out>
void iou_pairs(const double* a, const double* b, int64_t first, int64_t last, Out* out) {
  for (int64_t begin = first; begin < last; begin += kLanes<double>) {
    int64_t index[kLanes<double>];
    for (int64_t l = 0; l < kLanes<double>; ++l) index[l] = std::min(begin + l, last - 1);
    const Vec<double> iou = rotated_iou(read_boxes(a, index), read_boxes(b, index));
    for (int64_t l = 0; l < kLanes<double> && begin + l < last; ++l) out[begin + l] = static_cast<Out>(iou[l]);
  }
}
