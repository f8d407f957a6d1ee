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

#define STRUCTOPS_ISA_FILE "nms/nms_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

// The largest T that is not above the threshold: a T exceeds one if it exceeds the other.
template <class T>
T round_down(double threshold) {
  const T near = static_cast<T>(threshold);
  return near > threshold ? std::nextafter(near, -std::numeric_limits<T>::infinity()) : near;
}

template <class T>
void suppress_segment(const T* boxes, const uint32_t* order, int64_t n, T limit, uint8_t* kept) {
  if (n > 1) STRUCTOPS_ISA_DISPATCH(suppress<T>(boxes, order, n, limit, kept));
}

// As suppress, for classes: those of idxs. Each is a segment of its own, and segments share nothing.
template <class T>
void suppress_classes(const T* boxes, const uint32_t* order, const int64_t* idxs, int64_t n, T limit, uint8_t* kept,
                      ParallelFor parallel_for) {
  auto items = std::make_unique_for_overwrite<Indexed<uint64_t>[]>(2 * n);
  for (int64_t i = 0; i < n; ++i) items[i] = {static_cast<uint64_t>(idxs[order[i]]), order[i]};
  const Indexed<uint64_t>* sorted =
      radix_sort(items.get(), items.get() + n, n);  // stable: stays by score within a class
  auto by_class = std::make_unique_for_overwrite<uint32_t[]>(n);
  std::vector<int64_t> begin;
  for (int64_t i = 0; i < n; ++i) {
    by_class[i] = sorted[i].index;
    if (i == 0 || sorted[i].key != sorted[i - 1].key) begin.push_back(i);
  }
  begin.push_back(n);
  const int64_t segments = begin.size() - 1;
  struct Context {
    const T* boxes;
    const uint32_t* order;
    const int64_t* begin;
    T limit;
    uint8_t* kept;
  };
  Context context{boxes, by_class.get(), begin.data(), limit, kept};
  // 20,000 boxes of 80 classes take 1.5 ms; waking a second thread has cost up to 5 on a busy machine.
  const int64_t grain = std::max<int64_t>(1, segments * 16384 / n);
  parallel_for(
      segments, grain,
      [](int64_t first, int64_t last, void* p) {
        const auto& c = *static_cast<Context*>(p);
        for (int64_t s = first; s < last; ++s)
          suppress_segment(c.boxes, c.order + c.begin[s], c.begin[s + 1] - c.begin[s], c.limit, c.kept);
      },
      &context);
}

}  // namespace

template <class T>
std::vector<int64_t> nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, double iou_threshold,
                         ParallelFor parallel_for) {
  std::vector<int64_t> out(n);
  if (n == 0) return out;
  using Key = decltype(descending_key(T()));
  auto items = std::make_unique_for_overwrite<Indexed<Key>[]>(2 * n);
  for (int64_t i = 0; i < n; ++i) items[i] = {descending_key(scores[i]), static_cast<uint32_t>(i)};
  const Indexed<Key>* sorted = radix_sort(items.get(), items.get() + n, n);
  auto order = std::make_unique_for_overwrite<uint32_t[]>(n);
  for (int64_t i = 0; i < n; ++i) order[i] = sorted[i].index;
  items.reset();

  auto kept = std::make_unique_for_overwrite<uint8_t[]>(n);
  std::fill_n(kept.get(), n, uint8_t{1});
  const T limit = round_down<T>(iou_threshold);
  if (limit < 1) {  // an IoU is never above 1
    if (idxs == nullptr)
      suppress_segment(boxes, order.get(), n, limit, kept.get());
    else
      suppress_classes(boxes, order.get(), idxs, n, limit, kept.get(), parallel_for);
  }
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    out[count] = order[i];
    count += kept[order[i]];
  }
  out.resize(count);
  return out;
}

template std::vector<int64_t> nms<float>(const float*, const float*, const int64_t*, int64_t, double, ParallelFor);
template std::vector<int64_t> nms<double>(const double*, const double*, const int64_t*, int64_t, double, ParallelFor);

}  // namespace structops::cpu
