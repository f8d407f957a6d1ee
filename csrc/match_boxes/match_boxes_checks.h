// What both bindings of match_boxes check and allocate. The checks in Python are in structops/ops/match_boxes.py.
#pragma once
#include <limits>

#include "common/tensor.h"
#include "match_boxes/match_boxes.h"

namespace structops {

inline void check_match_boxes(const Tensor& gt, const Tensor& anchors, double high_threshold, double low_threshold,
                              const OptionalTensor& valid) {
  constexpr const char* op = "match_boxes";
  const auto check_boxes = [&](const char* name, const char* shapes, const Tensor& boxes) {
    STRUCTOPS_CHECK((boxes.dim() == 2 || boxes.dim() == 3) && boxes.size(-1) == 4, op, ": ", name, " must be ", shapes,
                    " (x1, y1, x2, y2), got ", boxes.dim(), " dimensions", boxes.dim() ? ", the last of size " : "",
                    boxes.dim() ? std::to_string(boxes.size(-1)) : "");
    check_floating(op, name, boxes);
  };
  check_boxes("gt", "[M, 4] or [B, M, 4]", gt);
  check_boxes("anchors", "[N, 4] or [B, N, 4]", anchors);
  STRUCTOPS_CHECK(anchors.dim() == 2 || (gt.dim() == 3 && anchors.size(0) == gt.size(0)), op,
                  ": anchors [B, N, 4] go with gt [B, M, 4] of as many images, got ", anchors.size(0), " for ",
                  gt.dim() == 3 ? std::to_string(gt.size(0)) : "gt [M, 4]");
  STRUCTOPS_CHECK(anchors.device() == gt.device(), op, ": anchors must be on the same device as gt");
  STRUCTOPS_CHECK(gt.size(-2) <= std::numeric_limits<int32_t>::max(), op, ": at most 2^31 - 1 ground truths an image");
  STRUCTOPS_CHECK(low_threshold <= high_threshold, op,  // NaN fails too
                  ": low_threshold must be at most high_threshold, got ", low_threshold, " and ", high_threshold);
  if (!valid) return;
  STRUCTOPS_CHECK(gt.dim() == 3 && valid->dim() == 1 && valid->size(0) == gt.size(0), op,
                  ": valid must be [B] and go with gt [B, M, 4], got ", valid->dim(), " dimensions for gt of ",
                  gt.dim());
  STRUCTOPS_CHECK(is_integer(valid->scalar_type()), op, ": valid must be an integer tensor, got ",
                  torch::headeronly::toString(valid->scalar_type()));
  STRUCTOPS_CHECK(valid->device() == gt.device(), op, ": valid must be on the same device as gt");
}

// Arguments as the kernels take them, and the outputs.
struct MatchTensors {
  MatchParams params;
  ScalarType type;  // of coordinates and IoUs: halves are compared in float32, which holds them exactly
  Tensor gt, anchors;
  OptionalTensor valid;
  Tensor matches, ious;  // [B, N], or [N] for gt [M, 4]

  MatchTensors(const Tensor& gt_, const Tensor& anchors_, double high_threshold, double low_threshold, bool low_quality,
               const OptionalTensor& valid_)
      : params{gt_.dim() == 3 ? gt_.size(0) : 1,
               gt_.size(-2),
               anchors_.size(-2),
               anchors_.dim() == 2,
               high_threshold,
               low_threshold,
               low_quality},
        type(wide_type(gt_, anchors_)),
        gt(dense(gt_, type)),
        anchors(dense(anchors_, type)),
        valid(dense(valid_, ScalarType::Long)),
        matches(output(gt_, ScalarType::Long)),
        ious(output(gt_, type)) {}

 private:
  Tensor output(const Tensor& like, ScalarType of) const {
    const int64_t size[2] = {params.images, params.anchors};
    const bool batched = like.dim() == 3;
    return empty({size + (batched ? 0 : 1), batched ? size_t{2} : size_t{1}}, of, like);
  }
};

}  // namespace structops
