// Order by score, one segment of it for each class, and the weights of each.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/cpu/radix_sort.h"
#include "common/tensor.h"
#include "matrix_nms/matrix_nms.h"
#include "nms/nms_cpu_order.h"

#define STRUCTOPS_ISA_FILE "matrix_nms/matrix_nms_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

// order [n]: the boxes of one class by falling score, with overlaps given as ious [N, N].
template <class T>
void weigh_given(const T* ious, int64_t row, const uint32_t* order, int64_t n, const MatrixNmsRule<T>& rule,
                 T* weights) {
  auto worst = std::make_unique<T[]>(n);
  for (int64_t j = 0; j < n; ++j) {  // what the better ones need is known by then
    const T* overlaps = ious + row * order[j];
    T least = rule.none();
    for (int64_t i = 0; i < j; ++i) {
      const T iou = counted<T>(overlaps[order[i]]), lowering = rule.lowering(worst[i], iou);
      worst[j] = std::max(worst[j], iou);
      least = std::min(least, lowering);
    }
    weights[order[j]] = rule.weight(least);
  }
}

}  // namespace

template <class T>
void matrix_nms(const MatrixNmsInput<T>& in, const MatrixNmsRule<T>& rule, T* lowered, ParallelFor parallel_for) {
  const int64_t n = in.n;
  if (n == 0) return;
  using Key = decltype(descending_key(T()));
  auto items = std::make_unique_for_overwrite<Indexed<Key>[]>(2 * n);
  for (int64_t i = 0; i < n; ++i) items[i] = {descending_key(in.scores[i]), static_cast<uint32_t>(i)};
  const Indexed<Key>* sorted = radix_sort(items.get(), items.get() + n, n);
  auto order = std::make_unique_for_overwrite<uint32_t[]>(n);
  for (int64_t i = 0; i < n; ++i) order[i] = sorted[i].index;
  items.reset();

  std::fill_n(lowered, n, T(1));  // weights at first
  const auto weigh = [&](const uint32_t* members, int64_t count, ParallelFor within) {
    if (in.ious != nullptr)
      weigh_given(in.ious, n, members, count, rule, lowered);
    else
      STRUCTOPS_ISA_DISPATCH(weigh_class<T>(in.boxes, members, count, rule, lowered, within));
  };
  if (in.idxs == nullptr) {
    weigh(order.get(), n, parallel_for);
  } else {
    const Segments segments = segments_by_class(in.idxs, order.get(), n);
    const auto work = [&](ItemQueue& queue) {
      for (int64_t s, end; queue.take(s, end);)
        weigh(segments.boxes.get() + segments.begin[s], segments.begin[s + 1] - segments.begin[s], on_this_thread);
    };
    share(parallel_for, std::min(segments.count(), workers_for(10.0 * n)), segments.count(), 1, work);
  }
  for (int64_t i = 0; i < n; ++i) lowered[i] = in.scores[i] * lowered[i];
}

template void matrix_nms<float>(const MatrixNmsInput<float>&, const MatrixNmsRule<float>&, float*, ParallelFor);
template void matrix_nms<double>(const MatrixNmsInput<double>&, const MatrixNmsRule<double>&, double*, ParallelFor);

}  // namespace structops::cpu
