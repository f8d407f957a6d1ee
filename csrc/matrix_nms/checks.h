// Argument checks that the CPU and CUDA bindings of matrix_nms share, and the rule that its numbers make.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "matrix_nms/matrix_nms_rule.h"
#include "nms/nms_checks.h"

namespace structops {

inline void check_matrix_nms(const Tensor& scores, const OptionalTensor& boxes, const OptionalTensor& ious,
                             const OptionalTensor& idxs, int64_t kernel, double sigma) {
  constexpr const char* op = "matrix_nms";
  STRUCTOPS_CHECK(scores.dim() == 1, op, ": scores must be [N] (1 dimension), got ", scores.dim(), " dimensions");
  check_floating(op, "scores", scores);
  STRUCTOPS_CHECK(boxes.has_value() != ious.has_value(), op, ": give boxes or ious, one of the two");
  const int64_t n = scores.size(0);
  if (boxes)
    STRUCTOPS_CHECK(boxes->dim() == 2 && boxes->size(0) == n && boxes->size(1) == 4, op,
                    ": boxes must be [N, 4] (x1, y1, x2, y2), one a score, for ", n, " scores");
  else
    STRUCTOPS_CHECK(ious->dim() == 2 && ious->size(0) == n && ious->size(1) == n, op,
                    ": ious must be [N, N], a row and a column a score, for ", n, " scores");
  const char* name = boxes ? "boxes" : "ious";
  const Tensor& given = boxes ? *boxes : *ious;
  check_floating(op, name, given);
  STRUCTOPS_CHECK(given.device() == scores.device(), op, ": ", name, " must be on the same device as scores");
  if (idxs) {
    STRUCTOPS_CHECK(idxs->dim() == 1 && idxs->size(0) == n, op, ": idxs must be [N], one entry a score");
    check_integer(op, "idxs", *idxs);
    STRUCTOPS_CHECK(idxs->device() == scores.device(), op, ": idxs must be on the same device as scores");
  }
  STRUCTOPS_CHECK(kernel == 0 || kernel == 1, op, ": kernel must be 0 (linear) or 1 (gaussian), got ", kernel);
  STRUCTOPS_CHECK(sigma > 0 && std::isfinite(sigma), op, ": sigma must be positive and finite, got ", sigma);
}

template <class T>
MatrixNmsRule<T> matrix_nms_rule(int64_t kernel, double sigma) {
  const double steepest = std::numeric_limits<T>::max();  // so that no overlap times it stays 0
  return {static_cast<MatrixNmsKernel>(kernel), static_cast<T>(std::min(sigma, steepest))};
}

}  // namespace structops
