// Intersection over union of rotated boxes on CPUs, free of torch.
#pragma once
#include <cstdint>
#include <memory>

#include "box_iou_rotated/rotated_box.h"
#include "common/cpu/parallel.h"

namespace structops::cpu {

// Rotated boxes, prepared, with the bounds of 16 boxes side by side: what decides whether a pair is looked at.
class RotatedBoxes {
 public:
  static constexpr int64_t kPadding = 16;  // bounds that meet nothing follow the last box's, for whole vectors

  // boxes [N, 5] (centre x, centre y, width, height, degrees), of order[i] where there is an order.
  RotatedBoxes(const double* boxes, int64_t n, const uint32_t* order, ParallelFor parallel_for);

  int64_t size() const { return size_; }
  RotatedBox& operator[](int64_t i) const { return boxes_[i]; }
  const RotatedBox* boxes() const { return boxes_.get(); }
  // One coordinate of the bounds of all boxes: 0 x1, 1 y1, 2 x2, 3 y2.
  float* bounds(int coordinate) const { return bounds_.get() + coordinate * (size_ + kPadding); }

 private:
  int64_t size_;
  std::unique_ptr<RotatedBox[]> boxes_;
  std::unique_ptr<float[]> bounds_;
};

// out [N, M]: of each of a with each of b. Out: float or double.
template <class Out>
void box_iou_rotated(const RotatedBoxes& a, const RotatedBoxes& b, Out* out, ParallelFor parallel_for);

// out [N]: of pairs of rows of a and b [N, 5].
template <class Out>
void box_iou_rotated_elementwise(const double* a, const double* b, int64_t n, Out* out, ParallelFor parallel_for);

}  // namespace structops::cpu
