// The arguments of generate_proposals, and what both bindings check and make of them.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "common/tensor.h"
#include "generate_proposals/generate_proposals.h"

namespace structops {

struct ProposalArguments {
  const std::vector<Tensor>&objectness, &deltas;
  const Tensor& image_sizes;
  const std::vector<Tensor>& anchors;
  const std::vector<int64_t>& strides;
  int64_t pre_nms_top_n, post_nms_top_n;
  double nms_thresh, min_size, score_thresh;
  const std::vector<double>& weights;
  double bbox_xform_clip;

  ScalarType type() const { return objectness[0].scalar_type(); }
  // Of the result, and of everything between.
  ScalarType compute_type() const { return wide_type({type()}); }
};

// The same in Python is structops/ops/generate_proposals.py; the error cases hold both to the same messages.
inline void check_proposals(const ProposalArguments& a) {
  constexpr const char* op = "generate_proposals";
  const size_t levels = a.objectness.size();
  STRUCTOPS_CHECK(levels > 0 && levels <= kMaxProposalLevels, op, ": objectness must be 1 to ", kMaxProposalLevels,
                  " maps, got ", levels);
  STRUCTOPS_CHECK(a.deltas.size() == levels, op, ": deltas must be one map for each of objectness, got ",
                  a.deltas.size(), " for ", levels);
  STRUCTOPS_CHECK(a.anchors.empty() || a.anchors.size() == levels, op,
                  ": anchors must be one tensor for each level, got ", a.anchors.size(), " for ", levels);
  STRUCTOPS_CHECK(a.strides.empty() || (a.strides.size() == 2 * levels && !a.anchors.empty()), op,
                  ": strides must be a pair (y, x) for each level of anchors, got ", a.strides.size(), " numbers for ",
                  levels, " levels");
  const Tensor& first = a.objectness[0];
  check_floating(op, "objectness", first);
  for (size_t i = 0; i < levels; ++i) {
    const Tensor &o = a.objectness[i], &d = a.deltas[i];
    STRUCTOPS_CHECK(o.dim() == 4 && o.size(0) == first.size(0), op, ": objectness[", i,
                    "] must be [B, A, H, W] with the B of objectness[0]");
    STRUCTOPS_CHECK(o.scalar_type() == first.scalar_type() && o.device() == first.device(), op, ": objectness[", i,
                    "] must have the dtype and device of objectness[0]");
    STRUCTOPS_CHECK(d.dim() == 4 && d.size(0) == o.size(0) && d.size(1) == 4 * o.size(1) && d.size(2) == o.size(2) &&
                        d.size(3) == o.size(3),
                    op, ": deltas[", i, "] must be [B, 4A, H, W] for objectness[", i, "] [B, A, H, W]");
    STRUCTOPS_CHECK(d.scalar_type() == first.scalar_type() && d.device() == first.device(), op, ": deltas[", i,
                    "] must have the dtype and device of objectness[0]");
    const int64_t scores = o.size(1) * o.size(2) * o.size(3);
    STRUCTOPS_CHECK(scores < std::numeric_limits<int32_t>::max() / 2, op, ": objectness[", i,
                    "] must have fewer than 2^30 scores an image, got ", scores);
    if (a.anchors.empty()) continue;
    const Tensor& n = a.anchors[i];
    const int64_t rows = a.strides.empty() ? scores : o.size(1);
    STRUCTOPS_CHECK(
        n.dim() == 2 && n.size(0) == rows && n.size(1) == 4, op, ": anchors[", i, "] must be [",
        a.strides.empty() ? "H * W * A" : "A", ", 4] = [", rows, ", 4] (x1, y1, x2, y2), got ", shape_text(n),
        a.strides.empty() && n.dim() == 2 && n.size(0) == o.size(1) ? " (those of a cell go with strides)" : "");
    STRUCTOPS_CHECK(is_floating(n.scalar_type()), op, ": anchors[", i, "] must be floating point, got ",
                    torch::headeronly::toString(n.scalar_type()));
    STRUCTOPS_CHECK(n.device() == first.device(), op, ": anchors[", i, "] must be on the same device as objectness");
  }
  STRUCTOPS_CHECK(a.image_sizes.dim() == 2 && a.image_sizes.size(0) == first.size(0) && a.image_sizes.size(1) == 2, op,
                  ": image_sizes must be [B, 2] (height, width), a row for each of ", first.size(0), " images");
  STRUCTOPS_CHECK(is_floating(a.image_sizes.scalar_type()) || is_integer(a.image_sizes.scalar_type()), op,
                  ": image_sizes must be of an integer or floating type, got ",
                  torch::headeronly::toString(a.image_sizes.scalar_type()));
  STRUCTOPS_CHECK(a.image_sizes.device() == first.device(), op,
                  ": image_sizes must be on the same device as objectness");
  STRUCTOPS_CHECK(a.pre_nms_top_n >= 0, op, ": pre_nms_top_n must not be negative, got ", a.pre_nms_top_n);
  STRUCTOPS_CHECK(a.post_nms_top_n >= 0, op, ": post_nms_top_n must not be negative, got ", a.post_nms_top_n);
  STRUCTOPS_CHECK(a.nms_thresh >= 0, op, ": nms_thresh must be 0 or more, got ", a.nms_thresh);
  const bool sound = a.weights.size() == 4 &&
                     std::all_of(a.weights.begin(), a.weights.end(), [](double w) { return w != 0 && w - w == 0; });
  STRUCTOPS_CHECK(sound, op, ": weights must be 4 finite numbers other than 0");
}

// A level's numbers (proposal_level), level after level.
inline std::vector<int64_t> level_numbers(const ProposalArguments& a) {
  std::vector<int64_t> numbers;
  for (size_t i = 0; i < a.objectness.size(); ++i) {
    const Tensor &o = a.objectness[i], &d = a.deltas[i];
    for (const int64_t n : {o.size(1), o.size(2), o.size(3), o.stride(0), o.stride(1), o.stride(2), o.stride(3),
                            d.stride(0), d.stride(1), d.stride(2), d.stride(3)})
      numbers.push_back(n);
    const bool grid = !a.strides.empty();
    for (const int64_t n : {grid ? a.strides[2 * i] : 0, grid ? a.strides[2 * i + 1] : 0, int64_t{grid},
                            std::min(a.pre_nms_top_n, o.size(1) * o.size(2) * o.size(3))})
      numbers.push_back(n);
  }
  return numbers;
}

// reciprocals: how torch divides by a number on the device.
inline ProposalParams proposal_params(const ProposalArguments& a, const std::vector<int64_t>& numbers,
                                      bool reciprocals) {
  const int64_t levels = a.objectness.size();
  int64_t slots = 0;
  for (int64_t l = 0; l < levels; ++l) slots += numbers[l * kLevelNumbers + kLevelNumbers - 1];
  return {a.objectness[0].size(0),
          levels,
          slots,
          a.weights[0],
          a.weights[1],
          a.weights[2],
          a.weights[3],
          reciprocals,
          a.bbox_xform_clip,
          a.min_size,
          a.score_thresh};
}

}  // namespace structops
