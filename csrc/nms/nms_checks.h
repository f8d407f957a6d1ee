// Argument checks that the bindings of NMS share.
#pragma once
#include <algorithm>
#include <vector>

#include "common/tensor.h"

namespace structops {

inline void check_iou_threshold(const char* op, double iou_threshold) {
  STRUCTOPS_CHECK(iou_threshold >= 0, op, ": iou_threshold must be 0 or more, got ", iou_threshold);  // NaN fails too
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
                  shape_text(boxes));
  check_floating(op, "boxes", boxes);
  check_scores_and_classes(op, boxes, scores, idxs, iou_threshold);
}

// The result of the CPU kernels that return indices.
inline Tensor as_tensor(const std::vector<int64_t>& indices, const Tensor& like) {
  const Tensor out = empty({static_cast<int64_t>(indices.size())}, ScalarType::Long, like);
  std::copy(indices.begin(), indices.end(), mutable_data<int64_t>(out));
  return out;
}

}  // namespace structops
