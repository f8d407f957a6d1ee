// generate_proposals for torch on CUDA: checks, and the kernels with torch's own sigmoid, exponential and sorts between
// them. Nothing waits for the GPU.
#include <optional>
#include <tuple>

#include "common/aten.h"
#include "generate_proposals/generate_proposals_checks.h"
#include "generate_proposals/generate_proposals_cuda.h"
#include "nms/nms_binding_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;
using Proposals = std::tuple<Tensor, Tensor, Tensor>;

cuda::ScoreData pointers(const std::vector<Tensor>& maps) {
  const void* m[kMaxProposalLevels] = {};
  for (size_t i = 0; i < maps.size(); ++i) m[i] = maps[i].const_data_ptr();
  return {m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]};
}

// [images, levels * best]: the best of each level, as many as it has.
template <class S>
Tensor choose(const ProposalParams& p, const std::vector<int64_t>& numbers, const cuda::ScoreData& objectness,
              int64_t best, const Tensor& like, cudaStream_t stream) {
  using Key = std::conditional_t<sizeof(S) == 8, int64_t, int32_t>;
  const cuda::TopK top{p.levels, p.images, 1, best, kNoFloor};
  std::vector<int64_t> maps;
  std::vector<ProposalLevel> levels;
  for (int64_t l = 0; l < p.levels; ++l) {
    levels.push_back(proposal_level(&numbers[l * kLevelNumbers], nullptr, nullptr, nullptr));
    const ScoreShape shape = score_shape(levels.back());
    maps.insert(maps.end(), shape.size, shape.size + 3);
    maps.insert(maps.end(), shape.stride, shape.stride + 3);
    maps.insert(maps.end(), {levels.back().objectness_stride[0], 0});
  }
  Tensor chosen = empty({p.images, p.levels * best}, ScalarType::Int, like);
  if (best <= cuda::kMaxTopK) {
    const int64_t bytes = cuda::top_k_workspace<S>(top, maps.data());
    Tensor workspace = empty({bytes}, ScalarType::Byte, like);
    STD_CUDA_CHECK(cuda::top_k<S>(top, objectness, maps.data(), workspace.mutable_data_ptr(),
                                  mutable_data<int32_t>(chosen), stream));
    return chosen;
  }
  for (int64_t l = 0; l < p.levels; ++l) {
    const ScalarType type = sizeof(Key) == 8 ? ScalarType::Long : ScalarType::Int;
    Tensor keys = empty({p.images, score_shape(levels[l]).count()}, type, like);
    STD_CUDA_CHECK(cuda::top_k_keys<S>(top, objectness, maps.data(), l, mutable_data<Key>(keys), stream));
    Tensor order = cuda::sort_rows(keys).indices;
    Tensor here = torch::stable::narrow(chosen, 1, l * best, levels[l].slots);
    torch::stable::copy_(here, torch::stable::narrow(order, 1, 0, levels[l].slots));
  }
  return chosen;
}

template <class S, class C>
Proposals run(const ProposalArguments& a) {
  const ScalarType type = a.compute_type();
  const Tensor& like = a.objectness[0];
  const cudaStream_t stream = cuda::current_stream(like);
  const auto empty = [&](std::initializer_list<int64_t> size, ScalarType of) {
    return structops::empty(size, of, like);
  };
  const std::vector<int64_t> numbers = level_numbers(a);
  const ProposalParams p = proposal_params(a, numbers, true);
  const int64_t post = a.post_nms_top_n;
  Tensor proposals = empty({p.images, post, 4}, type), proposal_scores = empty({p.images, post}, type);
  Tensor counts = empty({p.images}, ScalarType::Long);
  if (p.images == 0) return {proposals, proposal_scores, counts};

  std::vector<Tensor> anchors;
  for (const Tensor& t : a.anchors) anchors.push_back(dense(t, type));
  const Tensor sizes = dense(a.image_sizes, type);
  const cuda::ProposalMaps maps{pointers(a.objectness), pointers(a.deltas), pointers(anchors)};
  int64_t best = 0;
  for (int64_t l = 0; l < p.levels; ++l) best = std::max(best, numbers[(l + 1) * kLevelNumbers - 1]);
  const Tensor chosen = choose<S>(p, numbers, maps.objectness, best, like, stream);
  const cuda::ProposalChoice choice{data<int32_t>(chosen), best};

  Tensor scores = empty({p.images, p.slots}, type);
  Tensor exponentials = empty({p.images, anchors.empty() ? 0 : p.slots, 2}, type);
  STD_CUDA_CHECK(cuda::proposal_codes<S>(p, maps, numbers.data(), choice, mutable_data<C>(scores),
                                         mutable_data<C>(exponentials), stream));
  call_aten("aten::sigmoid_", "", scores);
  call_aten("aten::exp_", "", exponentials);

  Tensor boxes = empty({p.images, p.slots, 4}, type), level_of = empty({p.images, p.slots}, ScalarType::Long);
  Tensor takes = empty({p.images, p.slots}, ScalarType::Bool);
  STD_CUDA_CHECK(cuda::proposal_boxes<S>(p, maps, numbers.data(), choice, data<C>(scores), data<C>(exponentials),
                                         data<C>(sizes), mutable_data<C>(boxes), mutable_data<int64_t>(level_of),
                                         mutable_data<bool>(takes), stream));
  Tensor kept = empty({p.images, post}, ScalarType::Long);
  cuda::suppress<C>(boxes, scores, level_of, p.images, p.slots, {nullptr, data<bool>(takes)}, a.nms_thresh,
                    {post, true, mutable_data<int64_t>(kept), mutable_data<int64_t>(counts)});
  STD_CUDA_CHECK(cuda::gather_proposals<C>(p.images, p.slots, post, data<int64_t>(kept), data<C>(boxes),
                                           data<C>(scores), mutable_data<C>(proposals),
                                           mutable_data<C>(proposal_scores), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
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
  const DeviceGuard guard(objectness[0].get_device_index());
  std::optional<Proposals> found;
  STRUCTOPS_DISPATCH_FLOATING(a.type(), "generate_proposals", [&] {
    found = run<cuda::DeviceType<scalar_t>, std::conditional_t<sizeof(scalar_t) == 8, double, float>>(a);
  });
  return *found;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("generate_proposals", TORCH_BOX(&generate_proposals)); }

}  // namespace structops
