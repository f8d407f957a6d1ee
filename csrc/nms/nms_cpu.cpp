// Order by score, one segment of it for each class, and what suppress() leaves.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/cpu/radix_sort.h"
#include "common/tensor.h"
#include "nms/nms.h"
#include "nms/nms_cpu_order.h"
#include "nms/nms_threshold.h"

#define STRUCTOPS_ISA_FILE "nms/nms_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

template <class T>
void suppress_segment(const T* boxes, const uint32_t* order, int64_t n, T limit, int64_t enough, uint8_t* kept) {
  if (n > 1) STRUCTOPS_ISA_DISPATCH(suppress<T>(boxes, order, n, limit, enough, kept));
}

// As suppress, for classes: those of idxs. Each is a segment of its own, and segments share nothing.
template <class T>
void suppress_classes(const T* boxes, const uint32_t* order, const int64_t* idxs, int64_t n, T limit, int64_t enough,
                      uint8_t* kept, ParallelFor parallel_for) {
  const Segments segments = segments_by_class(idxs, order, n);  // by score within a class
  struct Context {
    const T* boxes;
    const uint32_t* order;
    const int64_t* begin;
    T limit;
    int64_t enough;
    uint8_t* kept;
  };
  Context context{boxes, segments.boxes.get(), segments.begin.data(), limit, enough, kept};
  // 20,000 boxes of 80 classes take 1.5 ms; waking a second thread has cost up to 5 on a busy machine.
  const int64_t grain = std::max<int64_t>(1, segments.count() * 16384 / n);
  parallel_for(
      segments.count(), grain,
      [](int64_t first, int64_t last, void* p) {
        const auto& c = *static_cast<Context*>(p);
        for (int64_t s = first; s < last; ++s)
          suppress_segment(c.boxes, c.order + c.begin[s], c.begin[s + 1] - c.begin[s], c.limit, c.enough, c.kept);
      },
      &context);
}

// The best max_output kept boxes of one image, of those for which takes(box) is true: their indices into out, and how
// many there are. Neither one class nor several together give more than max_output, so that each stops there; what is
// left undecided after that has a score below the last of the output.
template <class T, class Takes>
int64_t nms_image(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, const Takes& takes,
                  double iou_threshold, int64_t max_output, int64_t* out, ParallelFor parallel_for) {
  using Key = decltype(descending_key(T()));
  auto items = std::make_unique_for_overwrite<Indexed<Key>[]>(2 * n);
  int64_t m = 0;
  for (int64_t i = 0; i < n; ++i) {
    items[m] = {descending_key(scores[i]), static_cast<uint32_t>(i)};
    m += takes(i);
  }
  if (m == 0) return 0;
  const Indexed<Key>* sorted = radix_sort(items.get(), items.get() + m, m);
  auto order = std::make_unique_for_overwrite<uint32_t[]>(m);
  for (int64_t i = 0; i < m; ++i) order[i] = sorted[i].index;
  items.reset();

  auto kept = std::make_unique_for_overwrite<uint8_t[]>(n);
  std::fill_n(kept.get(), n, uint8_t{1});
  const T limit = round_down<T>(iou_threshold);
  if (limit < 1) {  // an IoU is never above 1
    if (idxs == nullptr)
      suppress_segment(boxes, order.get(), m, limit, max_output, kept.get());
    else
      suppress_classes(boxes, order.get(), idxs, m, limit, max_output, kept.get(), parallel_for);
  }
  int64_t count = 0;
  for (int64_t i = 0; i < m && count < max_output; ++i) {
    out[count] = order[i];
    count += kept[order[i]];
  }
  return count;
}

}  // namespace

template <class T>
std::vector<int64_t> nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, double iou_threshold,
                         ParallelFor parallel_for) {
  std::vector<int64_t> out(n);
  const auto all = [](int64_t) { return true; };
  out.resize(nms_image(boxes, scores, idxs, n, all, iou_threshold, n, out.data(), parallel_for));
  return out;
}

template <class T>
void nms_padded(const NmsBatch<T>& batch, double iou_threshold, int64_t max_output, int64_t* indices, int64_t* counts,
                ParallelFor parallel_for) {
  const int64_t n = batch.n;
  const auto run = [&](int64_t image, ParallelFor classes) {
    const T* scores = batch.scores + image * n;
    const auto takes = [&](int64_t i) { return batch.filter.takes(image, n, i, scores[i]); };
    int64_t* out = indices + image * max_output;
    counts[image] =
        nms_image(batch.boxes + image * n * 4, scores, batch.idxs == nullptr ? nullptr : batch.idxs + image * n, n,
                  takes, iou_threshold, max_output, out, classes);
    std::fill(out + counts[image], out + max_output, int64_t{-1});
  };
  if (batch.images == 1) return run(0, parallel_for);
  // 5000 boxes take 0.3 to 0.8 ms: about 100 steps each.
  const int64_t workers = std::min(batch.images, workers_for(100.0 * batch.images * n));
  share(parallel_for, workers, batch.images, 1, [&](ItemQueue& queue) {
    for (int64_t image, end; queue.take(image, end);) run(image, on_this_thread);
  });
}

template std::vector<int64_t> nms<float>(const float*, const float*, const int64_t*, int64_t, double, ParallelFor);
template std::vector<int64_t> nms<double>(const double*, const double*, const int64_t*, int64_t, double, ParallelFor);
template void nms_padded<float>(const NmsBatch<float>&, double, int64_t, int64_t*, int64_t*, ParallelFor);
template void nms_padded<double>(const NmsBatch<double>&, double, int64_t, int64_t*, int64_t*, ParallelFor);

}  // namespace structops::cpu
