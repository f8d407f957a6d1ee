// Argument checks that the CPU and CUDA bindings of soft_nms share, and the rule that its numbers make.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "nms/nms_checks.h"
#include "nms/nms_threshold.h"
#include "soft_nms/soft_nms_rule.h"

namespace structops {

inline void check_soft_nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs,
                           double iou_threshold, int64_t method, double sigma, double score_threshold,
                           int64_t max_output) {
  constexpr const char* op = "soft_nms";
  check_nms(op, boxes, scores, idxs ? &*idxs : nullptr, iou_threshold);
  STRUCTOPS_CHECK(method >= 0 && method <= 2, op, ": method must be 0 (hard), 1 (linear) or 2 (gaussian), got ",
                  method);
  STRUCTOPS_CHECK(sigma > 0 && std::isfinite(sigma), op, ": sigma must be positive and finite, got ", sigma);
  STRUCTOPS_CHECK(score_threshold >= 0, op, ": score_threshold must be 0 or more, got ", score_threshold);
  STRUCTOPS_CHECK(max_output >= 0, op, ": max_output must be 0 or more, got ", max_output);
}

template <class T>
SoftNmsRule<T> soft_nms_rule(double iou_threshold, int64_t method, double sigma, double score_threshold) {
  const double steepest = std::numeric_limits<T>::max();  // so that no overlap times it stays 0
  return {static_cast<SoftNmsMethod>(method), round_down<T>(iou_threshold),
          static_cast<T>(std::max(-1 / sigma, -steepest)), round_down<T>(score_threshold)};
}

}  // namespace structops
