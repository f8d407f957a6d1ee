// Argument checks that the CPU and CUDA bindings of nms_padded share, and what its filter is made of.
#pragma once
#include <optional>

#include "nms/nms_checks.h"
#include "nms/nms_filter.h"

namespace structops {

// [B, N], as scores are.
inline void check_each_box(const char* name, const Tensor& t, const Tensor& boxes) {
  constexpr const char* op = "nms_padded";
  STRUCTOPS_CHECK(t.dim() == 2 && t.size(0) == boxes.size(0) && t.size(1) == boxes.size(1), op, ": ", name,
                  " must be [B, N], one entry a box of boxes [", boxes.size(0), ", ", boxes.size(1), ", 4]");
  STRUCTOPS_CHECK(t.device() == boxes.device(), op, ": ", name, " must be on the same device as boxes");
}

inline void check_nms_padded(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs,
                             const OptionalTensor& valid, double iou_threshold, int64_t max_output) {
  constexpr const char* op = "nms_padded";
  STRUCTOPS_CHECK(boxes.dim() == 3 && boxes.size(2) == 4, op, ": boxes must be [B, N, 4] (x1, y1, x2, y2), got ",
                  boxes.dim(), " dimensions", boxes.dim() == 3 ? " with a wrong third size" : "");
  check_floating(op, "boxes", boxes);
  check_floating(op, "scores", scores);
  check_each_box("scores", scores, boxes);
  if (idxs) {
    check_integer(op, "idxs", *idxs);
    check_each_box("idxs", *idxs, boxes);
  }
  if (valid && valid->scalar_type() == ScalarType::Bool) {
    check_each_box("valid", *valid, boxes);
  } else if (valid) {
    STRUCTOPS_CHECK(is_integer(valid->scalar_type()), op, ": valid must be [B] of integers or [B, N] of bool, got ",
                    torch::headeronly::toString(valid->scalar_type()));
    STRUCTOPS_CHECK(valid->dim() == 1 && valid->size(0) == boxes.size(0), op,
                    ": valid, of integers, must be [B], one count an image");
    STRUCTOPS_CHECK(valid->device() == boxes.device(), op, ": valid must be on the same device as boxes");
  }
  check_iou_threshold(op, iou_threshold);
  STRUCTOPS_CHECK(max_output >= 0, op, ": max_output must be 0 or more, got ", max_output);
}

inline OptionalTensor dense_valid(const OptionalTensor& valid) {
  const bool mask = valid && valid->scalar_type() == ScalarType::Bool;
  return dense(valid, mask ? ScalarType::Bool : ScalarType::Long);
}

// The kernels' view of `valid`, dense and of int64 or bool, and of the threshold.
inline NmsFilter nms_filter(const OptionalTensor& valid, const std::optional<double>& score_threshold) {
  NmsFilter filter;
  if (valid && valid->scalar_type() == ScalarType::Bool)
    filter.mask = data<bool>(*valid);
  else if (valid)
    filter.counts = data<int64_t>(*valid);
  filter.by_score = score_threshold.has_value();
  filter.score_threshold = score_threshold.value_or(0);
  return filter;
}

}  // namespace structops
