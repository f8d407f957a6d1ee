// Argument checks that the CPU and CUDA bindings of NMS share.
#pragma once
#include "common/tensor.h"

namespace structops {

inline void check_nms(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs,
                      double iou_threshold) {
  STRUCTOPS_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, op, ": boxes must be [N, 4] (x1, y1, x2, y2), got ",
                  boxes.dim(), " dimensions", boxes.dim() == 2 ? " with a wrong second size" : "");
  STRUCTOPS_CHECK(is_floating(boxes.scalar_type()), op, ": boxes must be float16, bfloat16, float32 or float64, got ",
                  torch::headeronly::toString(boxes.scalar_type()));
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

}  // namespace structops
