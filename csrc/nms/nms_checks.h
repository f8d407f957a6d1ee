// Argument checks that the CPU and CUDA bindings of NMS share, and what both compute in.
#pragma once
#include "common/tensor.h"

namespace structops {

inline void check_iou_threshold(const char* op, double iou_threshold) {
  STRUCTOPS_CHECK(iou_threshold >= 0, op, ": iou_threshold must be 0 or more, got ", iou_threshold);  // NaN fails too
}

inline void check_floating(const char* op, const char* name, const Tensor& t) {
  STRUCTOPS_CHECK(is_floating(t.scalar_type()), op, ": ", name, " must be float16, bfloat16, float32 or float64, got ",
                  torch::headeronly::toString(t.scalar_type()));
}

inline void check_integer(const char* op, const char* name, const Tensor& t) {
  STRUCTOPS_CHECK(is_integer(t.scalar_type()), op, ": ", name, " must be an integer tensor, got ",
                  torch::headeronly::toString(t.scalar_type()));
}

// What is suppressed by, whatever the boxes are.
inline void check_scores_and_classes(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs,
                                     double iou_threshold) {
  STRUCTOPS_CHECK(scores.dim() == 1, op, ": scores must be [N] (1 dimension), got ", scores.dim(), " dimensions");
  check_floating(op, "scores", scores);
  STRUCTOPS_CHECK(scores.size(0) == boxes.size(0), op, ": scores must have one entry a box, got ", scores.size(0),
                  " for ", boxes.size(0), " boxes");
  STRUCTOPS_CHECK(scores.device() == boxes.device(), op, ": scores must be on the same device as boxes");
  if (idxs != nullptr) {
    STRUCTOPS_CHECK(idxs->dim() == 1 && idxs->size(0) == boxes.size(0), op, ": idxs must be [N], one entry a box");
    check_integer(op, "idxs", *idxs);
    STRUCTOPS_CHECK(idxs->device() == boxes.device(), op, ": idxs must be on the same device as boxes");
  }
  check_iou_threshold(op, iou_threshold);
}

inline void check_nms(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs,
                      double iou_threshold) {
  STRUCTOPS_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, op, ": boxes must be [N, 4] (x1, y1, x2, y2), got ",
                  boxes.dim(), " dimensions", boxes.dim() == 2 ? " with a wrong second size" : "");
  check_floating(op, "boxes", boxes);
  check_scores_and_classes(op, boxes, scores, idxs, iou_threshold);
}

// Half boxes are compared in float32, which holds them exactly; double stays double.
inline ScalarType nms_type(const Tensor& boxes, const Tensor& scores) {
  const bool is_double = boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double;
  return is_double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace structops
