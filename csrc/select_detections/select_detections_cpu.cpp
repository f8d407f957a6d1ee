// Candidates by their scores, the best of a level or class, their boxes, and NMS by class.
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
#include "nms/nms.h"

#define STRUCTOPS_ISA_FILE "select_detections/select_detections_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

// Values that a thread goes through at a time: 30 us.
constexpr int64_t kPart = 1 << 17;

// Keeps the `limit` best of the candidates [begin, end), best first, from `to` on. Returns where they end.
template <class T>
int64_t keep_best(DetectionCandidates<T>& c, int64_t begin, int64_t end, int64_t limit, int64_t to) {
  if (end - begin <= limit) {
    std::copy(c.index.begin() + begin, c.index.begin() + end, c.index.begin() + to);
    std::copy(c.score.begin() + begin, c.score.begin() + end, c.score.begin() + to);
    return to + end - begin;
  }
  const std::vector<int64_t> index(c.index.begin() + begin, c.index.begin() + end);
  const std::vector<T> score(c.score.begin() + begin, c.score.begin() + end);
  std::vector<int32_t> best(limit);
  top_k(score.data(), {{1, 1, end - begin}, {0, 0, 1}}, limit, kNoFloor, best.data());
  for (const int32_t place : best) {
    c.index[to] = index[place];
    c.score[to++] = score[place];
  }
  return to;
}

template <class T>
void truncate(DetectionCandidates<T>& c, int64_t size) {
  c.index.resize(size);
  c.score.resize(size);
  c.begin.back() = size;
}

// Boxes of the candidates [begin, end) of one image, and what NMS leaves of them.
template <class T>
void select_in_image(const DetectionParams& p, const DetectionCandidates<T>& c, const DetectionTensors<T>& t,
                     int64_t image, ParallelFor parallel_for) {
  const int64_t begin = c.begin[image], end = c.begin[image + 1];
  const auto boxes = std::make_unique_for_overwrite<BoxOf<T>[]>(end - begin);
  const auto scores = std::make_unique_for_overwrite<T[]>(end - begin);
  const auto labels = std::make_unique_for_overwrite<int64_t[]>(end - begin);
  const auto* priors = reinterpret_cast<const BoxOf<T>*>(t.proposals) + (p.shared ? 0 : image * p.rows);
  int64_t n = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = c.index[i] / p.classes, label = c.index[i] % p.classes;
    const T* e = t.exponentials + (p.distances ? 0 : 2 * i);
    boxes[n] = decode_clipped(p, t.deltas + delta_index(p, image * p.rows + row, label), priors[row],
                              p.distances ? T(0) : e[0], p.distances ? T(0) : e[1], t.image_sizes + 2 * image);
    scores[n] = c.score[i];
    labels[n] = label;
    n += large_enough(p, boxes[n]);
  }
  const std::vector<int64_t> kept =
      nms(reinterpret_cast<const T*>(boxes.get()), scores.get(), labels.get(), n, p.iou_threshold, parallel_for);
  const int64_t count = std::min<int64_t>(kept.size(), p.detections), first = image * p.detections;
  auto* box = reinterpret_cast<BoxOf<T>*>(t.boxes) + first;
  for (int64_t d = 0; d < p.detections; ++d) {
    const bool there = d < count;
    box[d] = there ? boxes[kept[d]] : BoxOf<T>{};
    t.scores[first + d] = there ? scores[kept[d]] : T(0);
    t.labels[first + d] = there ? labels[kept[d]] : -1;
  }
  t.counts[image] = count;
}

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
          const int64_t end = std::min(begin + kPart, used_rows(c.p, c.valid, image) * c.p.classes);
          const S* part = c.values + image * c.p.rows * c.p.classes + begin;
          if (begin < end) STRUCTOPS_ISA_DISPATCH(append_at_least<S>(part, end - begin, c.least, begin, c.found[i]));
        }
      },
      &context);
  DetectionCandidates<WideOf<S>> out;
  out.begin.push_back(0);
  for (int64_t image = 0; image < p.images; ++image) {
    for (int64_t part = 0; part < parts; ++part)
      for (const int64_t index : found[image * parts + part])
        if (index % p.classes != p.background) out.index.push_back(index);
    out.begin.push_back(out.index.size());
  }
  out.score.resize(out.index.size());
  return out;
}

template <class T>
void keep_above(DetectionCandidates<T>& c, T threshold) {
  int64_t to = 0, from = 0;
  for (size_t image = 0; image + 1 < c.begin.size(); ++image) {
    for (; from < c.begin[image + 1]; ++from) {
      c.index[to] = c.index[from];
      c.score[to] = c.score[from];
      to += c.score[from] > threshold;
    }
    c.begin[image + 1] = to;
  }
  truncate(c, to);
}

template <class T>
void keep_best_of_levels(const DetectionParams& p, DetectionCandidates<T>& c, const std::vector<int64_t>& levels,
                         int64_t limit) {
  int64_t to = 0, from = 0;
  for (int64_t image = 0; image < p.images; ++image) {
    const int64_t image_end = c.begin[image + 1];
    int64_t last = 0;
    for (const int64_t size : levels) {
      last += size * p.classes;
      const int64_t end = std::lower_bound(c.index.begin() + from, c.index.begin() + image_end, last) - c.index.begin();
      to = keep_best(c, from, end, limit, to);
      from = end;
    }
    c.begin[image + 1] = to;
  }
  truncate(c, to);
}

template <class T>
void keep_best_of_classes(const DetectionParams& p, DetectionCandidates<T>& c, int64_t limit) {
  DetectionCandidates<T> sorted = c;
  std::vector<int64_t> place(p.classes + 1);  // where the candidates of each class begin
  int64_t to = 0, from = 0;
  for (int64_t image = 0; image < p.images; ++image) {
    const int64_t end = c.begin[image + 1];
    std::fill(place.begin(), place.end(), 0);
    for (int64_t i = from; i < end; ++i) ++place[c.index[i] % p.classes + 1];
    place[0] = from;
    for (int64_t label = 0; label < p.classes; ++label) place[label + 1] += place[label];
    for (int64_t i = from; i < end; ++i) {
      const int64_t at = place[c.index[i] % p.classes]++;
      sorted.index[at] = c.index[i];
      sorted.score[at] = c.score[i];
    }
    for (int64_t label = 0; label < p.classes; ++label) {  // by now, where each class ends
      to = keep_best(sorted, from, place[label], limit, to);
      from = place[label];
    }
    sorted.begin[image + 1] = to;
  }
  truncate(sorted, to);
  c = std::move(sorted);
}

template <class T>
void detection_sizes(const DetectionParams& p, const DetectionCandidates<T>& c, const T* deltas, T* out) {
  const T width = static_cast<T>(p.weight_width), height = static_cast<T>(p.weight_height);
  const T largest = static_cast<T>(p.clip);
  for (int64_t image = 0; image < p.images; ++image) {
    for (int64_t i = c.begin[image]; i < c.begin[image + 1]; ++i) {
      const T* delta = deltas + delta_index(p, image * p.rows + c.index[i] / p.classes, c.index[i] % p.classes);
      out[2 * i] = size_code(delta[2], width, largest);
      out[2 * i + 1] = size_code(delta[3], height, largest);
    }
  }
}

template <class T>
void select_detections(const DetectionParams& p, const DetectionCandidates<T>& candidates,
                       const DetectionTensors<T>& tensors, ParallelFor parallel_for) {
  struct Context {
    const DetectionParams& p;
    const DetectionCandidates<T>& candidates;
    const DetectionTensors<T>& tensors;
    ParallelFor parallel_for;
  } context{p, candidates, tensors, parallel_for};
  parallel_for(
      p.images, 1,
      [](int64_t first, int64_t last, void* pointer) {
        const auto& c = *static_cast<Context*>(pointer);
        for (int64_t image = first; image < last; ++image)
          select_in_image(c.p, c.candidates, c.tensors, image, c.parallel_for);
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

#define INSTANTIATE(T)                                                                                               \
  template void keep_above<T>(DetectionCandidates<T>&, T);                                                           \
  template void keep_best_of_levels<T>(const DetectionParams&, DetectionCandidates<T>&, const std::vector<int64_t>&, \
                                       int64_t);                                                                     \
  template void keep_best_of_classes<T>(const DetectionParams&, DetectionCandidates<T>&, int64_t);                   \
  template void detection_sizes<T>(const DetectionParams&, const DetectionCandidates<T>&, const T*, T*);             \
  template void select_detections<T>(const DetectionParams&, const DetectionCandidates<T>&,                          \
                                     const DetectionTensors<T>&, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace structops::cpu
