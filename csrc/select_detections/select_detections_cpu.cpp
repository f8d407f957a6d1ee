// Candidates by their scores, and NMS down the scores until D are found.
//
// A detector wants the best 100 or 300 of thousands of candidates. So they are sorted some at a time, best first, and a
// candidate meets only what is kept of its class. How many of a level or class go on needs no choice of its own either:
// down the scores, it is a count. Most candidates never get a box, nor an exponential.
#include "select_detections/select_detections_cpu.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/cpu/top_k.h"
#include "common/tensor.h"
#include "nms/nms_threshold.h"

namespace structops::cpu {
namespace {

// Kept boxes of an image, coordinate by coordinate, with room for whole vectors.
template <class T>
struct KeptBoxes {
  T *x1, *y1, *x2, *y2, *area, *label;
  int64_t count;
};

// The label of a box that meets nothing.
constexpr int kNoLabel = -1;

}  // namespace
}  // namespace structops::cpu

#define STRUCTOPS_ISA_FILE "select_detections/select_detections_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

// Values that a thread goes through at a time: 30 us.
constexpr int64_t kPart = 1 << 17;

template <class T>
class Kept {
  static constexpr int64_t kWidest = 64 / sizeof(T);
  std::unique_ptr<T[]> memory_;
  KeptBoxes<T> boxes_;
  const T limit_;

 public:
  Kept(int64_t capacity, double nms_thresh) : limit_(round_down<T>(nms_thresh)) {
    const int64_t row = (capacity + kWidest - 1) / kWidest * kWidest;
    memory_ = std::make_unique_for_overwrite<T[]>(6 * row);
    T* m = memory_.get();
    boxes_ = {m, m + row, m + 2 * row, m + 3 * row, m + 4 * row, m + 5 * row, 0};
    std::fill_n(m, 6 * row, T(kNoLabel));
  }
  int64_t count() const { return boxes_.count; }

  // Keeps the box unless one of its class that is kept already overlaps it.
  bool keep(const BoxOf<T>& b, int64_t label) {
    // Only boxes of positive, finite area take part. Any other meets all boxes with an intersection of 0, or a union
    // that is infinite or NaN, and an IoU of 0 or NaN exceeds nothing. An IoU is never above 1.
    const T area = (b.x2 - b.x1) * (b.y2 - b.y1);
    const bool takes_part =
        limit_ < 1 && b.x1 < b.x2 && b.y1 < b.y2 && area > 0 && area <= std::numeric_limits<T>::max();
    bool met = false;
    if (takes_part) STRUCTOPS_ISA_DISPATCH(meet<T>(boxes_, b, area, static_cast<T>(label), limit_, met));
    if (met) return false;
    const int64_t i = boxes_.count++;
    boxes_.x1[i] = b.x1, boxes_.y1[i] = b.y1, boxes_.x2[i] = b.x2, boxes_.y2[i] = b.y2;
    boxes_.area[i] = area;
    boxes_.label[i] = static_cast<T>(takes_part ? label : kNoLabel);
    return true;
  }
};

// Lists the candidates of each image class by class.
template <class T>
void sort_by_class(const DetectionParams& p, DetectionCandidates<T>& c) {
  DetectionCandidates<T> sorted = c;
  std::vector<int64_t> place(p.classes + 1);
  for (int64_t image = 0; image < p.images; ++image) {
    std::fill(place.begin(), place.end(), 0);
    for (int64_t i = c.begin[image]; i < c.begin[image + 1]; ++i) ++place[c.label[i] + 1];
    place[0] = c.begin[image];
    for (int64_t label = 0; label < p.classes; ++label) place[label + 1] += place[label];
    for (int64_t i = c.begin[image]; i < c.begin[image + 1]; ++i) {
      const int64_t at = place[c.label[i]]++;
      sorted.row[at] = c.row[i];
      sorted.label[at] = c.label[i];
      sorted.score[at] = c.score[i];
    }
  }
  c = std::move(sorted);
}

// One image: its candidates [N], tensors from its first row on.
template <class T>
struct DetectionImage {
  const DetectionParams& p;
  const DetectionLimits& limits;
  const int64_t* row;
  const int32_t* label;
  const T* score;
  int64_t candidates;
  DetectionTensors<T> t;

  int64_t group(int64_t candidate) const {
    if (limits.by_class) return label[candidate];
    int64_t level = 0;
    for (int64_t left = row[candidate]; (left -= limits.levels[level]) >= 0;) ++level;
    return level;
  }
  const T* delta(int64_t candidate) const { return t.deltas + delta_index(p, row[candidate], label[candidate]); }

  // Candidates order [n], best first, go on until D are kept.
  void walk(const std::vector<int32_t>& order, Kept<T>& kept, Exponentials<T> exponentials) const {
    if (order.empty()) return;
    std::vector<T> sizes(p.distances ? 0 : 2 * order.size());
    if (!p.distances) {
      for (size_t i = 0; i < order.size(); ++i) {
        sizes[2 * i] = size_code(p, delta(order[i])[2], p.weight_width);
        sizes[2 * i + 1] = size_code(p, delta(order[i])[3], p.weight_height);
      }
      exponentials(sizes.data(), sizes.size());
    }
    for (size_t i = 0; i < order.size() && kept.count() < p.detections_per_img; ++i) {
      const BoxOf<T> box =
          decode_clipped(p, delta(order[i]), reinterpret_cast<const BoxOf<T>*>(t.proposals)[row[order[i]]],
                         p.distances ? T(0) : sizes[2 * i], p.distances ? T(0) : sizes[2 * i + 1], t.image_sizes);
      if (!large_enough(p, box) || !kept.keep(box, label[order[i]])) continue;
      const int64_t d = kept.count() - 1;
      reinterpret_cast<BoxOf<T>*>(t.boxes)[d] = box;
      t.scores[d] = score[order[i]];
      t.labels[d] = label[order[i]];
    }
  }

  void select(Exponentials<T> exponentials) const {
    Kept<T> kept(std::min(p.detections_per_img, candidates), p.nms_thresh);
    std::vector<int64_t> taken(limits.by_class ? p.classes : limits.levels.size());
    std::vector<int32_t> best, order;
    // A few times as many as are wanted are enough as a rule; 8 times as many again, until there are no more.
    int64_t looked = 0, size = std::max<int64_t>(256, 4 * p.detections_per_img);
    for (; looked < candidates && kept.count() < p.detections_per_img; size *= 8) {
      size = std::min(size, candidates);
      best.resize(size);
      top_k(score, {{1, 1, candidates}, {0, 0, 1}}, size, kNoFloor, best.data());
      order.clear();
      for (; looked < size; ++looked)
        if (limits.limit == 0 || taken[group(best[looked])]++ < limits.limit) order.push_back(best[looked]);
      walk(order, kept, exponentials);
    }
    *t.counts = kept.count();
    std::fill(t.boxes + 4 * kept.count(), t.boxes + 4 * p.detections_per_img, T(0));
    std::fill(t.scores + kept.count(), t.scores + p.detections_per_img, T(0));
    std::fill(t.labels + kept.count(), t.labels + p.detections_per_img, -1);
  }
};

}  // namespace

template <class S>
auto detection_candidates(const DetectionParams& p, const S* values, const int64_t* valid, double least,
                          ParallelFor parallel_for) -> DetectionCandidates<WideOf<S>> {
  const int64_t of_image = p.rows * p.classes, parts = (of_image + kPart - 1) / kPart;
  std::vector<std::vector<int64_t>> found(p.images * parts);
  struct Context {
    const DetectionParams& p;
    const S* values;
    const int64_t* valid;
    WideOf<S> least;
    int64_t parts;
    std::vector<int64_t>* found;
  } context{p, values, valid, static_cast<WideOf<S>>(least), parts, found.data()};
  parallel_for(
      p.images * parts, 1,
      [](int64_t first, int64_t last, void* pointer) {
        const auto& c = *static_cast<Context*>(pointer);
        for (int64_t i = first; i < last; ++i) {
          const int64_t image = i / c.parts, begin = i % c.parts * kPart;
          const int64_t rows = c.valid == nullptr ? c.p.rows : std::clamp<int64_t>(c.valid[image], 0, c.p.rows);
          const int64_t end = std::min(begin + kPart, rows * c.p.classes);
          const S* part = c.values + image * c.p.rows * c.p.classes + begin;
          if (begin < end) STRUCTOPS_ISA_DISPATCH(append_at_least<S>(part, end - begin, c.least, begin, c.found[i]));
        }
      },
      &context);
  DetectionCandidates<WideOf<S>> out;
  out.begin.push_back(0);
  for (int64_t image = 0; image < p.images; ++image) {
    int64_t row = 0, first = 0;  // and the first index of it
    for (int64_t part = 0; part < parts; ++part) {
      for (const int64_t index : found[image * parts + part]) {
        if (index - first >= 4 * p.classes) row = index / p.classes, first = row * p.classes;
        for (; index - first >= p.classes; first += p.classes) ++row;  // a division costs as much as all else here
        if (index - first == p.background) continue;
        out.row.push_back(row);
        out.label.push_back(static_cast<int32_t>(index - first));
      }
    }
    out.begin.push_back(out.row.size());
  }
  out.score.resize(out.row.size());
  return out;
}

template <class T>
void keep_above(DetectionCandidates<T>& c, T threshold) {
  int64_t to = 0, from = 0;
  for (size_t image = 0; image + 1 < c.begin.size(); ++image) {
    for (; from < c.begin[image + 1]; ++from) {
      c.row[to] = c.row[from];
      c.label[to] = c.label[from];
      c.score[to] = c.score[from];
      to += c.score[from] > threshold;
    }
    c.begin[image + 1] = to;
  }
  c.row.resize(to);
  c.label.resize(to);
  c.score.resize(to);
}

template <class T>
void select_detections(const DetectionParams& p, const DetectionLimits& limits, DetectionCandidates<T>& candidates,
                       const DetectionTensors<T>& tensors, Exponentials<T> exponentials, ParallelFor parallel_for) {
  if (limits.limit > 0 && limits.by_class) sort_by_class(p, candidates);
  struct Context {
    const DetectionParams& p;
    const DetectionLimits& limits;
    const DetectionCandidates<T>& candidates;
    const DetectionTensors<T>& t;
    Exponentials<T> exponentials;
  } context{p, limits, candidates, tensors, exponentials};
  parallel_for(
      p.images, 1,
      [](int64_t first, int64_t last, void* pointer) {
        const auto& [p, limits, c, t, exponentials] = *static_cast<Context*>(pointer);
        for (int64_t image = first; image < last; ++image) {
          const int64_t begin = c.begin[image], d = image * p.detections_per_img;
          const T* deltas = t.deltas + delta_index(p, image * p.rows, 0);
          const T* proposals = t.proposals + (p.shared ? 0 : image * p.rows * 4);
          const DetectionImage<T> one{p,
                                      limits,
                                      c.row.data() + begin,
                                      c.label.data() + begin,
                                      c.score.data() + begin,
                                      c.begin[image + 1] - begin,
                                      {deltas, proposals, t.image_sizes + 2 * image, t.boxes + 4 * d, t.scores + d,
                                       t.labels + d, t.counts + image}};
          one.select(exponentials);
        }
      },
      &context);
}

template DetectionCandidates<float> detection_candidates<Half>(const DetectionParams&, const Half*, const int64_t*,
                                                               double, ParallelFor);
template DetectionCandidates<float> detection_candidates<BFloat16>(const DetectionParams&, const BFloat16*,
                                                                   const int64_t*, double, ParallelFor);
template DetectionCandidates<float> detection_candidates<float>(const DetectionParams&, const float*, const int64_t*,
                                                                double, ParallelFor);
template DetectionCandidates<double> detection_candidates<double>(const DetectionParams&, const double*, const int64_t*,
                                                                  double, ParallelFor);

#define INSTANTIATE(T)                                                                                        \
  template void keep_above<T>(DetectionCandidates<T>&, T);                                                    \
  template void select_detections<T>(const DetectionParams&, const DetectionLimits&, DetectionCandidates<T>&, \
                                     const DetectionTensors<T>&, Exponentials<T>, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cpu
