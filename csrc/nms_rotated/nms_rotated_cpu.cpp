// Order by class and score, and what suppress() leaves.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

#include "nms_rotated/nms_rotated.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "box_iou_rotated/box_iou_rotated.h"
#include "common/cpu/radix_sort.h"
#include "common/tensor.h"

#define STRUCTOPS_ISA_FILE "nms_rotated/nms_rotated_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

template <class Key>
using Items = std::unique_ptr<Indexed<Key>[]>;

// Ranks [N] sorted by class, stable, and where each class begins (with N at the end).
struct Classes {
  std::unique_ptr<uint32_t[]> ranks;
  std::vector<int64_t> begin;

  Classes(const int64_t* idxs, const uint32_t* order, int64_t n) : ranks(new uint32_t[n]) {
    Items<uint64_t> items = std::make_unique_for_overwrite<Indexed<uint64_t>[]>(2 * n);
    for (int64_t i = 0; i < n; ++i)
      items[i] = {idxs == nullptr ? 0 : static_cast<uint64_t>(idxs[order[i]]), static_cast<uint32_t>(i)};
    const Indexed<uint64_t>* sorted = radix_sort(items.get(), items.get() + n, n);
    for (int64_t i = 0; i < n; ++i) {
      ranks[i] = sorted[i].index;
      if (i == 0 || sorted[i].key != sorted[i - 1].key) begin.push_back(i);
    }
    begin.push_back(n);
  }
};

void suppress_class(const RotatedBoxes& boxes, int64_t first, int64_t last, const NmsRotatedInput& in, uint8_t* kept) {
  if (last - first < 2) return;
  if (in.single) {
    STRUCTOPS_ISA_DISPATCH(suppress<float>(boxes, first, last, in.iou_threshold, kept));
  } else {
    STRUCTOPS_ISA_DISPATCH(suppress<double>(boxes, first, last, in.iou_threshold, kept));
  }
}

}  // namespace

template <class T>
std::vector<int64_t> nms_rotated(const NmsRotatedInput& in, const T* scores, ParallelFor parallel_for) {
  const int64_t n = in.n;
  std::vector<int64_t> out(n);
  if (n == 0) return out;
  using Key = decltype(descending_key(T()));
  Items<Key> items = std::make_unique_for_overwrite<Indexed<Key>[]>(2 * n);
  for (int64_t i = 0; i < n; ++i) items[i] = {descending_key(scores[i]), static_cast<uint32_t>(i)};
  const Indexed<Key>* sorted = radix_sort(items.get(), items.get() + n, n);
  auto order = std::make_unique_for_overwrite<uint32_t[]>(n);  // box of each rank
  for (int64_t i = 0; i < n; ++i) order[i] = sorted[i].index;
  items.reset();

  auto kept = std::make_unique_for_overwrite<uint8_t[]>(n);  // by rank
  std::fill_n(kept.get(), n, uint8_t{1});
  if (in.iou_threshold < 1) {  // an IoU is never above 1
    const Classes classes(in.idxs, order.get(), n);
    auto by_place = std::make_unique_for_overwrite<uint32_t[]>(n);
    for (int64_t i = 0; i < n; ++i) by_place[i] = order[classes.ranks[i]];
    const RotatedBoxes boxes(in.boxes, n, by_place.get(), parallel_for);
    auto kept_places = std::make_unique_for_overwrite<uint8_t[]>(n);
    std::fill_n(kept_places.get(), n, uint8_t{1});
    // Classes share nothing. A class costs up to the square of its boxes, half of a ns each.
    double pairs = 0;
    for (size_t c = 0; c + 1 < classes.begin.size(); ++c) {
      const double members = double(classes.begin[c + 1] - classes.begin[c]);
      pairs += members * members;
    }
    const int64_t count = int64_t(classes.begin.size()) - 1;
    share(parallel_for, std::min(workers_for(pairs / 8), count), count, 1, [&](ItemQueue& queue) {
      for (int64_t c, end; queue.take(c, end);)
        suppress_class(boxes, classes.begin[c], classes.begin[c + 1], in, kept_places.get() + classes.begin[c]);
    });
    for (int64_t i = 0; i < n; ++i) kept[classes.ranks[i]] = kept_places[i];
  }
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    out[count] = order[i];
    count += kept[i];
  }
  out.resize(count);
  return out;
}

template std::vector<int64_t> nms_rotated<float>(const NmsRotatedInput&, const float*, ParallelFor);
template std::vector<int64_t> nms_rotated<double>(const NmsRotatedInput&, const double*, ParallelFor);

}  // namespace structops::cpu
