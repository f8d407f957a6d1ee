// generate_proposals for torch: schema and the CPU binding (checks, allocation, torch's own sigmoid and exponential
// between the kernels).
#include <initializer_list>
#include <optional>
#include <tuple>

#include "common/aten.h"
#include "generate_proposals/generate_proposals_checks.h"
#include "generate_proposals/generate_proposals_cpu.h"
#include "nms/nms.h"

namespace structops {
namespace {

using Proposals = std::tuple<Tensor, Tensor, Tensor>;

template <class S>
Proposals run(const ProposalArguments& a) {
  using C = cpu::ComputeOf<S>;
  const ScalarType type = a.compute_type();
  const auto empty = [&](std::initializer_list<int64_t> size, ScalarType of) {
    return structops::empty(size, of, a.objectness[0]);
  };
  const std::vector<int64_t> numbers = level_numbers(a);
  const ProposalParams p = proposal_params(a, numbers, false);
  std::vector<Tensor> anchors;
  ProposalLevel levels[kMaxProposalLevels];
  for (int64_t l = 0; l < p.levels; ++l) {
    if (!a.anchors.empty()) anchors.push_back(dense(a.anchors[l], type));
    levels[l] = proposal_level(&numbers[l * kLevelNumbers], a.objectness[l].const_data_ptr(),
                               a.deltas[l].const_data_ptr(), anchors.empty() ? nullptr : anchors[l].const_data_ptr());
  }
  const Tensor sizes = dense(a.image_sizes, type);
  Tensor scores = empty({p.images, p.slots}, type), exponentials = empty({p.images, p.slots, 2}, type);
  Tensor chosen = empty({p.images, p.slots}, ScalarType::Int);
  cpu::choose_proposals<S>(p, levels, mutable_data<int32_t>(chosen), mutable_data<C>(scores),
                           mutable_data<C>(exponentials), parallel_for);
  sigmoid_in_parts(scores);  // scores lie as torchvision has them: torch rounds the same ones otherwise
  if (!a.anchors.empty()) call_aten("aten::exp_", "", exponentials);

  Tensor boxes = empty({p.images, p.slots, 4}, type), level_of = empty({p.images, p.slots}, ScalarType::Long);
  Tensor takes = empty({p.images, p.slots}, ScalarType::Bool);
  cpu::decode_proposals<S>(p, levels, data<int32_t>(chosen), data<C>(scores), data<C>(exponentials), data<C>(sizes),
                           mutable_data<C>(boxes), mutable_data<int64_t>(level_of), mutable_data<bool>(takes),
                           parallel_for);
  const int64_t post = a.post_nms_top_n;
  Tensor kept = empty({p.images, post}, ScalarType::Long), counts = empty({p.images}, ScalarType::Long);
  const cpu::NmsBatch<C> batch{
      p.images, p.slots, data<C>(boxes), data<C>(scores), data<int64_t>(level_of), {nullptr, data<bool>(takes)}};
  cpu::nms_padded(batch, a.nms_thresh, post, mutable_data<int64_t>(kept), mutable_data<int64_t>(counts), parallel_for);

  Tensor proposals = empty({p.images, post, 4}, type), proposal_scores = empty({p.images, post}, type);
  for (int64_t i = 0; i < p.images * post; ++i) {
    const int64_t slot = data<int64_t>(kept)[i], from = slot < 0 ? 0 : i / post * p.slots + slot;
    for (int64_t c = 0; c < 4; ++c)
      mutable_data<C>(proposals)[4 * i + c] = slot < 0 ? C(0) : data<C>(boxes)[4 * from + c];
    mutable_data<C>(proposal_scores)[i] = slot < 0 ? C(0) : data<C>(scores)[from];
  }
  return {proposals, proposal_scores, counts};
}

Proposals generate_proposals(const std::vector<Tensor>& objectness, const std::vector<Tensor>& deltas,
                             const Tensor& image_sizes, const std::vector<Tensor>& anchors,
                             const std::vector<int64_t>& strides, int64_t pre_nms_top_n, int64_t post_nms_top_n,
                             double nms_thresh, double min_size, double score_thresh,
                             const std::vector<double>& weights, double bbox_xform_clip) {
  const ProposalArguments a{objectness,     deltas,     image_sizes, anchors,      strides, pre_nms_top_n,
                            post_nms_top_n, nms_thresh, min_size,    score_thresh, weights, bbox_xform_clip};
  check_proposals(a);
  std::optional<Proposals> found;
  STRUCTOPS_DISPATCH_FLOATING(a.type(), "generate_proposals", [&] { found = run<scalar_t>(a); });
  return *found;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "generate_proposals(Tensor[] objectness, Tensor[] deltas, Tensor image_sizes, Tensor[] anchors, "
      "SymInt[] strides, int pre_nms_top_n, SymInt post_nms_top_n, float nms_thresh, float min_size, "
      "float score_thresh, float[] weights, float bbox_xform_clip) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("generate_proposals", TORCH_BOX(&generate_proposals)); }

}  // namespace structops
