// Argument checks that the CPU and CUDA bindings of select_detections share. The same in Python, with the same
// messages, is in structops/ops/select_detections.py.
#pragma once
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "common/tensor.h"
#include "select_detections/select_detections.h"

namespace structops {

// The arguments as the dispatcher passes them.
struct DetectionArguments {
  const Tensor &class_scores, &box_deltas, &proposals, &image_sizes;
  const std::optional<Tensor>&valid, &centerness;
  const std::vector<int64_t>& levels;
  bool sigmoid;
  int64_t background;
  bool distances;
  const std::vector<double>& weights;
  double bbox_xform_clip, score_thresh, nms_thresh;
  const std::optional<double>& min_size;
  int64_t topk_candidates, per_class_topk, detections_per_img;

  ScalarType compute_type() const {
    return wide_type(class_scores, box_deltas, proposals, centerness ? *centerness : class_scores);
  }

  // reciprocals: how torch divides by a number on the device.
  DetectionParams params(bool reciprocals) const {
    return {class_scores.size(0),
            class_scores.size(1),
            class_scores.size(2),
            background,
            box_deltas.size(2) != 4,
            proposals.dim() == 2,
            distances,
            weights[0],
            weights[1],
            weights[2],
            weights[3],
            reciprocals,
            bbox_xform_clip,
            score_thresh,
            nms_thresh,
            min_size.value_or(std::numeric_limits<double>::quiet_NaN()),
            detections_per_img};
  }
};

inline void check_detections(const DetectionArguments& a) {
  constexpr const char* op = "select_detections";
  const Tensor& scores = a.class_scores;
  STRUCTOPS_CHECK(scores.dim() == 3, op, ": class_scores must be [B, R, C] (3 dimensions), got ", scores.dim(),
                  " dimensions");
  const int64_t images = scores.size(0), rows = scores.size(1), classes = scores.size(2);
  STRUCTOPS_CHECK(classes <= kMaxDetectionClasses, op, ": class_scores must have at most ", kMaxDetectionClasses,
                  " classes, got ", classes);
  const auto is = [](const Tensor& t, std::initializer_list<int64_t> size) {
    if (t.dim() != static_cast<int64_t>(size.size())) return false;
    int64_t i = 0;
    for (const int64_t n : size)
      if (t.size(i++) != n) return false;
    return true;
  };
  const auto check = [&](const char* name, const Tensor& t, bool shaped, const char* shape) {
    STRUCTOPS_CHECK(shaped, op, ": ", name, " must be ", shape, " for class_scores [B, R, C], got ", shape_text(t),
                    " for ", shape_text(scores));
    STRUCTOPS_CHECK(t.device() == scores.device(), op, ": ", name, " must be on the same device as class_scores");
  };
  check("box_deltas", a.box_deltas,
        is(a.box_deltas, {images, rows, 4}) || is(a.box_deltas, {images, rows, 4 * classes}),
        "[B, R, 4] or [B, R, 4 * C]");
  check("proposals", a.proposals, is(a.proposals, {images, rows, 4}) || is(a.proposals, {rows, 4}),
        "[B, R, 4] or [R, 4]");
  check("image_sizes", a.image_sizes, is(a.image_sizes, {images, 2}), "[B, 2]");
  check_floating(op, "class_scores", scores);
  check_floating(op, "box_deltas", a.box_deltas);
  check_floating(op, "proposals", a.proposals);
  const ScalarType size_type = a.image_sizes.scalar_type();
  STRUCTOPS_CHECK(is_floating(size_type) || is_integer(size_type), op,
                  ": image_sizes must be of an integer or floating type, got ", torch::headeronly::toString(size_type));
  if (a.valid) {
    check("valid", *a.valid, is(*a.valid, {images}), "[B]");
    STRUCTOPS_CHECK(is_integer(a.valid->scalar_type()), op, ": valid must be an integer tensor, got ",
                    torch::headeronly::toString(a.valid->scalar_type()));
  }
  if (a.centerness) {
    check("centerness", *a.centerness, is(*a.centerness, {images, rows}), "[B, R]");
    check_floating(op, "centerness", *a.centerness);
    STRUCTOPS_CHECK(a.sigmoid, op, ": centerness goes with sigmoid scores");
  }
  STRUCTOPS_CHECK(a.levels.size() <= kMaxDetectionLevels, op, ": levels must be at most ", kMaxDetectionLevels,
                  ", got ", a.levels.size());
  if (!a.levels.empty()) {
    int64_t sum = 0;
    bool sizes = true;
    for (const int64_t n : a.levels) sum += n, sizes = sizes && n >= 0;
    STRUCTOPS_CHECK(sizes && sum == rows, op, ": levels must be sizes that add up to R = ", rows, ", got a sum of ",
                    sum);
  }
  STRUCTOPS_CHECK(a.background >= -1 && a.background < (classes > 0 ? classes : 1), op,
                  ": background must be one of the ", classes, " classes, got ", a.background);
  bool divisors = a.weights.size() == 4;
  for (const double weight : a.weights) divisors = divisors && weight != 0;
  STRUCTOPS_CHECK(divisors, op, ": weights must be 4 numbers other than 0, got ", a.weights.size());
  const auto check_number = [&](const char* name, double number) {
    STRUCTOPS_CHECK(!std::isnan(number), op, ": ", name, " must not be NaN");
  };
  check_number("bbox_xform_clip", a.bbox_xform_clip);
  check_number("score_thresh", a.score_thresh);
  check_number("min_size", a.min_size.value_or(0.0));
  STRUCTOPS_CHECK(a.nms_thresh >= 0, op, ": nms_thresh must be 0 or more, got ", a.nms_thresh);
  const auto check_limit = [&](const char* name, int64_t limit) {
    STRUCTOPS_CHECK(limit >= 0, op, ": ", name, " must not be negative, got ", limit);
  };
  const auto check_best = [&](const char* name, int64_t limit) {
    check_limit(name, limit);
    STRUCTOPS_CHECK(limit <= kMaxDetectionTopK, op, ": ", name, " must be at most ", kMaxDetectionTopK, ", got ",
                    limit);
  };
  check_best("topk_candidates", a.topk_candidates);
  check_best("per_class_topk", a.per_class_topk);
  check_limit("detections_per_img", a.detections_per_img);
  STRUCTOPS_CHECK(a.topk_candidates == 0 || a.per_class_topk == 0, op,
                  ": per_class_topk does not go together with topk_candidates");
}

}  // namespace structops
