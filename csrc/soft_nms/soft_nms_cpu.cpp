// Each class by itself, then all boxes taken by the scores that they were taken with.
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
#include "nms/nms_cpu_order.h"
#include "soft_nms/soft_nms.h"

#define STRUCTOPS_ISA_FILE "soft_nms/soft_nms_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

// Classes share nothing, and within each scores fall from step to step (equal ones come by index): taking the best of
// all classes again and again is merging what each gives by itself.
template <class T>
int64_t soft_nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, const SoftNmsRule<T>& rule,
                 int64_t most, int64_t* indices, T* decayed, ParallelFor parallel_for) {
  auto order = std::make_unique_for_overwrite<uint32_t[]>(n);
  std::iota(order.get(), order.get() + n, 0u);
  auto result = std::make_unique<T[]>(n);  // zeros: not taken
  if (idxs == nullptr) {
    STRUCTOPS_ISA_DISPATCH(soften_class<T>(boxes, scores, order.get(), n, rule, most, result.get()));
  } else {
    const Segments segments = segments_by_class(idxs, order.get(), n);
    const auto work = [&](ItemQueue& queue) {
      for (int64_t s, end; queue.take(s, end);) {
        const uint32_t* members = segments.boxes.get() + segments.begin[s];
        const int64_t count = segments.begin[s + 1] - segments.begin[s];
        STRUCTOPS_ISA_DISPATCH(soften_class<T>(boxes, scores, members, count, rule, most, result.get()));
      }
    };
    // Far fewer threads than would pay on an idle machine: see suppress_classes in nms_cpu.cpp.
    share(parallel_for, std::min(segments.count(), workers_for(10.0 * n)), segments.count(), 1, work);
  }

  using Key = decltype(descending_key(T()));
  auto items = std::make_unique_for_overwrite<Indexed<Key>[]>(2 * n);
  int64_t taken = 0;
  for (int64_t i = 0; i < n; ++i) {
    items[taken] = {descending_key(result[i]), static_cast<uint32_t>(i)};
    taken += result[i] > 0;
  }
  const Indexed<Key>* sorted = radix_sort(items.get(), items.get() + taken, taken);
  taken = std::min(taken, most);
  for (int64_t i = 0; i < taken; ++i) indices[i] = sorted[i].index, decayed[i] = result[sorted[i].index];
  std::fill(indices + taken, indices + most, int64_t{-1});
  std::fill(decayed + taken, decayed + most, T(0));
  return taken;
}

template int64_t soft_nms<float>(const float*, const float*, const int64_t*, int64_t, const SoftNmsRule<float>&,
                                 int64_t, int64_t*, float*, ParallelFor);
template int64_t soft_nms<double>(const double*, const double*, const int64_t*, int64_t, const SoftNmsRule<double>&,
                                  int64_t, int64_t*, double*, ParallelFor);

}  // namespace structops::cpu
