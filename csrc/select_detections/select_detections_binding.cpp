// select_detections for torch: schema and the CPU binding (checks, allocation, torch's own softmax, sigmoid and
// exponential between the kernels).
#include <cmath>
#include <tuple>

#include "common/aten.h"
#include "select_detections/select_detections_checks.h"
#include "select_detections/select_detections_cpu.h"

namespace structops {
namespace {

using Detections = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// torch shares more than 2048 exponentials between threads, which takes longer to arrange than to compute: of a few
// thousand, on a busy machine, 20 ms.
constexpr int64_t kExpPart = 2048;

template <class T>
void exponentials(T* values, int64_t n) {
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU, -1);
  constexpr ScalarType type = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
  call_aten_in_parts("aten::exp_", torch::stable::from_blob(values, {n}, {1}, cpu, type), kExpPart);
}

// Elements that torch's sigmoid takes by whole vectors on any machine: only those after the last multiple it rounds
// otherwise (sigmoid_in_parts in common/aten.h).
constexpr int64_t kSigmoidMultiple = 64;

// The sigmoids of source[at[i]], at least, as torch would round them in tensors that end at `ends`; at and ends rise.
template <class T, class S>
Tensor sigmoids(const Tensor& like, const S* source, const std::vector<int64_t>& at, const std::vector<int64_t>& ends,
                ScalarType type) {
  const int64_t n = at.size();
  Tensor values = empty({(n + kSigmoidMultiple - 1) / kSigmoidMultiple * kSigmoidMultiple}, type, like);
  T* value = mutable_data<T>(values);
  for (int64_t i = 0; i < values.size(0); ++i) value[i] = i < n ? static_cast<T>(source[at[i]]) : T(0);
  sigmoid_in_parts(values);
  int64_t begin = 0;
  for (const int64_t end : ends) {
    const int64_t rest = end - (end - begin) % kSigmoidMultiple;
    begin = end;
    int64_t i = std::lower_bound(at.begin(), at.end(), rest) - at.begin();
    if (i == n || at[i] >= end) continue;
    Tensor last = empty({end - rest}, type, like);
    T* element = mutable_data<T>(last);
    for (int64_t j = rest; j < end; ++j) element[j - rest] = static_cast<T>(source[j]);
    call_aten("aten::sigmoid_", "", last);
    for (; i < n && at[i] < end; ++i) value[i] = element[at[i] - rest];
  }
  return values;
}

// Below this logit no sigmoid is above the threshold, however it is rounded: that moves a logit by 1e-6 / (1 -
// threshold) at most.
double least_logit(double threshold) {
  if (threshold <= 1e-30) return -std::numeric_limits<double>::infinity();
  const double limited = std::min(threshold, 0.999);
  return std::log(limited / (1 - limited)) - 0.01;
}

// Whose sigmoid score is above the threshold: sought by the logit, since few of them are worth a sigmoid.
template <class S>
auto by_sigmoid(const DetectionArguments& a, const DetectionParams& p, const std::vector<int64_t>& levels,
                const Tensor& logits, const int64_t* valid) {
  using T = cpu::WideOf<S>;
  const ScalarType type = a.compute_type();
  const double share = p.score_thresh > 0 && a.centerness ? p.score_thresh : 1.0;  // centerness is at most 1
  auto found = cpu::detection_candidates(p, data<S>(logits), valid, least_logit(p.score_thresh * share), parallel_for);
  // Where candidates, and the ends of each image's levels, are among the logits, and among centerness.
  std::vector<int64_t> logit, row, logit_ends, row_ends;
  for (int64_t b = 0; b < p.images; ++b) {
    for (int64_t i = found.begin[b]; i < found.begin[b + 1]; ++i) {
      row.push_back(b * p.rows + found.row[i]);
      logit.push_back(row.back() * p.classes + found.label[i]);
    }
    int64_t last = b * p.rows;
    for (const int64_t size : levels) {
      last += size;
      row_ends.push_back(last);
      logit_ends.push_back(last * p.classes);
    }
  }
  Tensor scores = sigmoids<T>(logits, data<S>(logits), logit, logit_ends, type);
  if (a.centerness) {
    const Tensor centerness = dense(*a.centerness, type);
    const Tensor factors = sigmoids<T>(logits, data<T>(centerness), row, row_ends, type);
    T* score = mutable_data<T>(scores);
    const T* factor = data<T>(factors);
    for (int64_t i = 0; i < found.size(); ++i) score[i] *= factor[i];
    scores = call_aten("aten::sqrt", "", scores);  // torch's own: it is not always the nearest number
  }
  std::copy_n(data<T>(scores), found.size(), found.score.begin());
  cpu::keep_above(found, static_cast<T>(p.score_thresh));
  return found;
}

template <class T>
auto by_softmax(const DetectionParams& p, const Tensor& logits, const int64_t* valid) {
  const Tensor scores = call_aten("aten::_softmax", "", logits, int64_t(2), false);
  const T* score = data<T>(scores);
  const T above = std::nextafter(static_cast<T>(p.score_thresh), std::numeric_limits<T>::infinity());
  auto found = cpu::detection_candidates(p, score, valid, above, parallel_for);
  for (int64_t b = 0; b < p.images; ++b)
    for (int64_t i = found.begin[b]; i < found.begin[b + 1]; ++i)
      found.score[i] = score[(b * p.rows + found.row[i]) * p.classes + found.label[i]];
  return found;
}

// S: what the logits are stored in.
template <class S>
Detections run(const DetectionArguments& a, const Tensor& logits) {
  using T = cpu::WideOf<S>;
  const DetectionParams p = a.params(false);
  const ScalarType type = a.compute_type();
  const OptionalTensor counts = dense(a.valid, ScalarType::Long);
  const int64_t* valid = data<int64_t>(counts);
  const std::vector<int64_t> levels = a.levels.empty() ? std::vector<int64_t>{p.rows} : a.levels;
  cpu::DetectionCandidates<T> found;
  if (a.sigmoid) {
    found = by_sigmoid<S>(a, p, levels, logits, valid);
  } else if constexpr (std::is_same_v<S, T>) {
    found = by_softmax<T>(p, logits, valid);
  }
  const Tensor deltas = dense(a.box_deltas, type), proposals = dense(a.proposals, type);
  const Tensor sizes = dense(a.image_sizes, type);
  Tensor boxes = empty({p.images, p.detections_per_img, 4}, type, logits),
         scores = empty({p.images, p.detections_per_img}, type, logits);
  Tensor labels = empty({p.images, p.detections_per_img}, ScalarType::Long, logits);
  Tensor kept = empty({p.images}, ScalarType::Long, logits);
  const cpu::DetectionTensors<T> tensors{data<T>(deltas),
                                         data<T>(proposals),
                                         data<T>(sizes),
                                         mutable_data<T>(boxes),
                                         mutable_data<T>(scores),
                                         mutable_data<int64_t>(labels),
                                         mutable_data<int64_t>(kept)};
  // One of the two is 0.
  const cpu::DetectionLimits limits{a.topk_candidates + a.per_class_topk, a.per_class_topk > 0, levels};
  cpu::select_detections<T>(p, limits, found, tensors, exponentials<T>, parallel_for);
  return {boxes, scores, labels, kept};
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
  // Half logits are read as they are where few of them are needed.
  const ScalarType compute = a.compute_type(), given = class_scores.scalar_type();
  const bool as_is = sigmoid && compute == ScalarType::Float;
  const Tensor logits = dense(class_scores, as_is ? given : compute);
  if (compute == ScalarType::Double) return run<double>(a, logits);
  if (!as_is || given == ScalarType::Float) return run<float>(a, logits);
  return given == ScalarType::Half ? run<Half>(a, logits) : run<BFloat16>(a, logits);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "select_detections(Tensor class_scores, Tensor box_deltas, Tensor proposals, Tensor image_sizes, Tensor? valid, "
      "Tensor? centerness, int[] levels, bool sigmoid, int background, bool distances, float[] weights, float "
      "bbox_xform_clip, "
      "float score_thresh, float nms_thresh, float? min_size, int topk_candidates, int per_class_topk, "
      "int detections_per_img) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("select_detections", TORCH_BOX(&select_detections)); }

}  // namespace structops
