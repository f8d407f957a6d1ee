// Argument checks that the CPU and CUDA bindings of NMS of rotated boxes share.
#pragma once
#include "box_iou_rotated/box_iou_rotated_checks.h"
#include "nms/nms_checks.h"

namespace structops {

inline void check_nms_rotated(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs,
                              double iou_threshold) {
  check_rotated_boxes(op, "boxes", boxes);
  check_scores_and_classes(op, boxes, scores, idxs, iou_threshold);
}

}  // namespace structops
