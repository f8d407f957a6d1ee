// Intersection over union of rotated boxes on CPUs, free of torch.
#pragma once
#include <cstdint>
#include <memory>

#include "box_iou_rotated/rotated_box.h"
#include "common/cpu/parallel.h"

namespace structops::cpu {

// Bounds of boxes, each coordinate side by side: x1, y1, x2, y2.
struct BoundsColumns {
  const float* at[4];
};
class Bounds {
 public:
  explicit Bounds(int64_t n) : size_(n), values_(std::make_unique_for_overwrite<float[]>(4 * n)) {}
  float* column(int coordinate) { return values_.get() + coordinate * size_; }
  BoundsColumns columns() const {
    const float* at = values_.get();
    return {at, at + size_, at + 2 * size_, at + 3 * size_};
  }

 private:
  int64_t size_;
  std::unique_ptr<float[]> values_;
};

// Rotated boxes, prepared, and their bounds, which decide whether a pair is looked at.
class RotatedBoxes {
 public:
  // boxes [N, 5] (centre x, centre y, width, height, degrees), of order[i] where there is an order.
  RotatedBoxes(const double* boxes, int64_t n, const uint32_t* order, ParallelFor parallel_for);

  int64_t size() const { return size_; }
  const RotatedBox& operator[](int64_t i) const { return boxes_[i]; }
  const RotatedBox* data() const { return boxes_.get(); }
  // Some that meet nothing follow the last box's, so that whole vectors can be read.
  BoundsColumns bounds() const { return bounds_.columns(); }

 private:
  int64_t size_;
  std::unique_ptr<RotatedBox[]> boxes_;
  Bounds bounds_;
};

// out [N, M]: of each of a with each of b. Out: float or double.
template <class Out>
void box_iou_rotated(const RotatedBoxes& a, const RotatedBoxes& b, Out* out, ParallelFor parallel_for);

// out [N]: of pairs of rows of a and b [N, 5].
template <class Out>
void box_iou_rotated_elementwise(const double* a, const double* b, int64_t n, Out* out, ParallelFor parallel_for);

}  // namespace structops::cpu
