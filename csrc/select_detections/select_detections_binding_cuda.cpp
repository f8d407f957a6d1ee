// select_detections for torch on CUDA: checks, and the kernels with torch's own softmax, sigmoid, exponential and sort
// between them. Nothing waits for the GPU.
#include <algorithm>
#include <tuple>

#include "common/aten.h"
#include "common/cuda/top_k.h"
#include "nms/nms_binding_cuda.h"
#include "select_detections/select_detections_checks.h"
#include "select_detections/select_detections_cuda.h"

namespace structops {
namespace {

using cuda::data;
using cuda::dense;
using cuda::empty_like_device;
using torch::stable::accelerator::DeviceGuard;
using Detections = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class T>
T* mutable_data(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// [B, R, C], fresh
Tensor scores_of(const DetectionArguments& a, ScalarType type) {
  const Tensor logits = dense(a.class_scores, type);
  if (!a.sigmoid) return call_aten("aten::_softmax", "", logits, int64_t(2), false);
  const Tensor scores = call_aten("aten::sigmoid", "", logits);
  if (!a.centerness) return scores;
  const Tensor factors = call_aten("aten::sigmoid", "", dense(*a.centerness, type));
  const Tensor product = call_aten("aten::mul", "Tensor", scores, torch::stable::unsqueeze(factors, 2));
  return call_aten("aten::sqrt", "", product);
}

static_assert(kMaxDetectionLevels <= cuda::kMaxScoreMaps && kMaxDetectionTopK <= cuda::kMaxTopK);

constexpr int64_t kMaxSegments = 65535;  // of top_k

// The best of each level or class; `chosen` keeps their memory.
template <class T>
cuda::DetectionSlots best(const DetectionArguments& a, const DetectionParams& p, Tensor& scores, const int64_t* valid,
                          Tensor& chosen, cudaStream_t stream) {
  const bool by_class = a.per_class_topk > 0;
  const int64_t segments = p.images * (by_class ? p.classes : std::max<int64_t>(a.levels.size(), 1));
  STRUCTOPS_CHECK(segments <= kMaxSegments, "select_detections: class_scores has ", segments,
                  " levels or classes of all images to choose the best of, and a GPU takes ", kMaxSegments);
  if (valid != nullptr || (p.background >= 0 && !by_class))
    STD_CUDA_CHECK(cuda::detection_mask<T>(p, valid, mutable_data<T>(scores), stream));
  std::vector<int64_t> levels = a.levels;
  if (by_class || levels.empty()) levels.assign(1, p.rows);
  const int64_t longest = *std::max_element(levels.begin(), levels.end()) * (by_class ? 1 : p.classes);
  const int64_t limit = std::min(by_class ? a.per_class_topk : a.topk_candidates, longest);
  // Scores greater than the threshold in T, as torch compares them.
  const cuda::TopK top{static_cast<int64_t>(levels.size()), p.images, by_class ? p.classes : 1, limit,
                       static_cast<double>(static_cast<T>(p.score_thresh))};
  cuda::DetectionSlots slots{top.maps * top.classes * limit, nullptr, limit, by_class, {}};
  int64_t begins[cuda::kMaxScoreMaps] = {}, maps[cuda::kMaxScoreMaps * cuda::kScoreMapNumbers] = {};
  const void* pointers[cuda::kMaxScoreMaps] = {};
  for (int64_t level = 0, begin = 0; level < top.maps; begin += levels[level++]) {
    const int64_t count = by_class ? levels[level] : levels[level] * p.classes, stride = by_class ? p.classes : 1;
    const int64_t numbers[] = {1, 1, count, 0, 0, stride, p.rows * p.classes, 1};
    std::copy_n(numbers, cuda::kScoreMapNumbers, maps + level * cuda::kScoreMapNumbers);
    begins[level] = begin;
    pointers[level] = data<T>(scores) + begin * p.classes;
  }
  const auto& b = begins;
  const auto& m = pointers;
  slots.begins = {b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]};
  chosen = empty_like_device({p.images, slots.count}, ScalarType::Int, scores);
  const Tensor workspace =
      empty_like_device({static_cast<int64_t>(cuda::top_k_workspace<T>(top, maps))}, ScalarType::Byte, scores);
  STD_CUDA_CHECK(cuda::top_k<T>(top, {m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7]}, maps,
                                workspace.mutable_data_ptr(), mutable_data<int32_t>(chosen), stream));
  slots.chosen = data<int32_t>(chosen);
  return slots;
}

template <class T>
Detections run(const DetectionArguments& a) {
  const DetectionParams p = a.params(true);
  const ScalarType type = a.compute_type();
  const cudaStream_t stream = cuda::current_stream(a.class_scores);
  const auto empty = [&](std::initializer_list<int64_t> size, ScalarType of) {
    return empty_like_device(size, of, a.class_scores);
  };
  Tensor scores = scores_of(a, type);
  const Tensor deltas = dense(a.box_deltas, type), proposals = dense(a.proposals, type);
  const Tensor sizes = dense(a.image_sizes, type);
  std::optional<Tensor> counts;
  if (a.valid) counts = dense(*a.valid, ScalarType::Long);
  const cuda::DetectionHead<T> head{data<T>(scores), data<T>(deltas), data<T>(proposals), data<T>(sizes),
                                    counts ? data<int64_t>(*counts) : nullptr};
  Tensor chosen = empty({0}, ScalarType::Int);
  cuda::DetectionSlots slots{p.rows * p.classes, nullptr, 1, false, {}};
  if (a.topk_candidates + a.per_class_topk > 0) slots = best<T>(a, p, scores, head.valid, chosen, stream);

  Tensor exponentials = empty({p.images, p.distances ? 0 : slots.count, 2}, type);
  if (!p.distances) {
    STD_CUDA_CHECK(cuda::detection_sizes<T>(p, slots, head, mutable_data<T>(exponentials), stream));
    exponentials = call_aten("aten::exp", "", exponentials);
  }
  Tensor boxes = empty({p.images, slots.count, 4}, type);
  Tensor keys = empty({p.images, slots.count}, sizeof(cuda::NmsKey<T>) == 4 ? ScalarType::Int : ScalarType::Long);
  STD_CUDA_CHECK(cuda::detection_boxes<T>(p, slots, head, p.distances ? nullptr : data<T>(exponentials),
                                          mutable_data<T>(boxes), mutable_data<cuda::NmsKey<T>>(keys), stream));
  const cuda::Sorted sorted = cuda::sort_rows(keys);
  Tensor out_boxes = empty({p.images, p.detections_per_img, 4}, type),
         out_scores = empty({p.images, p.detections_per_img}, type);
  Tensor labels = empty({p.images, p.detections_per_img}, ScalarType::Long),
         found = empty({p.images}, ScalarType::Long);
  STD_CUDA_CHECK(cuda::detection_nms<T>(p, slots, head, data<T>(boxes),
                                        {data<cuda::NmsKey<T>>(sorted.values), data<int64_t>(sorted.indices)},
                                        {mutable_data<T>(out_boxes), mutable_data<T>(out_scores),
                                         mutable_data<int64_t>(labels), mutable_data<int64_t>(found)},
                                        stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {out_boxes, out_scores, labels, found};
}

Detections select_detections(const Tensor& class_scores, const Tensor& box_deltas, const Tensor& proposals,
                             const Tensor& image_sizes, const std::optional<Tensor>& valid,
                             const std::optional<Tensor>& centerness, const std::vector<int64_t>& levels, bool sigmoid,
                             int64_t background, bool distances, const std::vector<double>& weights,
                             double bbox_xform_clip, double score_thresh, double nms_thresh,
                             const std::optional<double>& min_size, int64_t topk_candidates, int64_t per_class_topk,
                             int64_t detections_per_img) {
  const DetectionArguments a{class_scores, box_deltas, proposals,  image_sizes,     valid,          centerness,
                             levels,       sigmoid,    background, distances,       weights,        bbox_xform_clip,
                             score_thresh, nms_thresh, min_size,   topk_candidates, per_class_topk, detections_per_img};
  check_detections(a);
  const DeviceGuard guard(class_scores.get_device_index());
  return a.compute_type() == ScalarType::Double ? run<double>(a) : run<float>(a);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("select_detections", TORCH_BOX(&select_detections)); }

}  // namespace structops
