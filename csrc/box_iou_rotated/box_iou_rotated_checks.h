// Argument checks that the CPU and CUDA bindings share, and the output.
#pragma once
#include "common/tensor.h"

namespace structops {

inline void check_rotated_boxes(const char* op, const char* name, const Tensor& boxes) {
  STRUCTOPS_CHECK(boxes.dim() == 2 && boxes.size(1) == 5, op, ": ", name,
                  " must be [N, 5] (centre x, centre y, width, height, angle), got ", shape_text(boxes));
  check_floating(op, name, boxes);
}

inline void check_box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2, bool elementwise) {
  check_rotated_boxes("box_iou_rotated", "boxes1", boxes1);
  check_rotated_boxes("box_iou_rotated", "boxes2", boxes2);
  STRUCTOPS_CHECK(boxes2.device() == boxes1.device(), "box_iou_rotated: boxes2 must be on the same device as boxes1");
  STRUCTOPS_CHECK(!elementwise || boxes1.size(0) == boxes2.size(0),
                  "box_iou_rotated: elementwise, boxes2 must have as many boxes as boxes1, got ", boxes2.size(0),
                  " for ", boxes1.size(0));
}

inline Tensor empty_iou(const Tensor& boxes1, const Tensor& boxes2, bool elementwise) {
  const int64_t n = boxes1.size(0), m = boxes2.size(0);
  const ScalarType type = wide_type(boxes1, boxes2);
  return elementwise ? empty({n}, type, boxes1) : empty({n, m}, type, boxes1);
}

}  // namespace structops
