// Argument checks and types that the CPU and CUDA bindings of NMS of rotated boxes share.
#pragma once
#include "box_iou_rotated/box_iou_rotated_checks.h"

namespace structops {

inline void check_nms_rotated(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs,
                              double iou_threshold) {
  check_rotated_boxes(op, "boxes", boxes);
  STRUCTOPS_CHECK(scores.dim() == 1, op, ": scores must be [N] (1 dimension), got ", scores.dim(), " dimensions");
  STRUCTOPS_CHECK(is_floating(scores.scalar_type()), op, ": scores must be float16, bfloat16, float32 or float64, got ",
                  torch::headeronly::toString(scores.scalar_type()));
  STRUCTOPS_CHECK(scores.size(0) == boxes.size(0), op, ": scores must have one entry a box, got ", scores.size(0),
                  " for ", boxes.size(0), " boxes");
  STRUCTOPS_CHECK(scores.device() == boxes.device(), op, ": scores must be on the same device as boxes");
  if (idxs != nullptr) {
    STRUCTOPS_CHECK(idxs->dim() == 1 && idxs->size(0) == boxes.size(0), op, ": idxs must be [N], one entry a box");
    STRUCTOPS_CHECK(is_integer(idxs->scalar_type()), op, ": idxs must be an integer tensor, got ",
                    torch::headeronly::toString(idxs->scalar_type()));
    STRUCTOPS_CHECK(idxs->device() == boxes.device(), op, ": idxs must be on the same device as boxes");
  }
  STRUCTOPS_CHECK(iou_threshold >= 0, op, ": iou_threshold must be 0 or more, got ", iou_threshold);  // NaN fails too
}

// Halves are sorted and prepared in float32, which holds them exactly.
inline ScalarType wide_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace structops
