// Order by class and score, and what suppress() leaves.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>

#include "nms_rotated/nms_rotated.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "box_iou_rotated/box_iou_rotated.h"
#include "common/cpu/radix_sort.h"
#include "common/tensor.h"
#include "nms/nms_cpu_order.h"

#define STRUCTOPS_ISA_FILE "nms_rotated/nms_rotated_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {
namespace {

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
  auto items = std::make_unique_for_overwrite<Indexed<Key>[]>(2 * n);
  for (int64_t i = 0; i < n; ++i) items[i] = {descending_key(scores[i]), static_cast<uint32_t>(i)};
  const Indexed<Key>* sorted = radix_sort(items.get(), items.get() + n, n);
  auto order = std::make_unique_for_overwrite<uint32_t[]>(n);
  for (int64_t i = 0; i < n; ++i) out[i] = order[i] = sorted[i].index;
  items.reset();
  if (in.iou_threshold >= 1) return out;  // an IoU is never above 1

  const Segments classes =
      in.idxs == nullptr ? Segments{std::move(order), {0, n}} : segments_by_class(in.idxs, order.get(), n);
  const RotatedBoxes boxes(in.boxes, n, classes.boxes.get(), parallel_for);
  auto kept = std::make_unique_for_overwrite<uint8_t[]>(n);  // in the order of the classes
  std::fill_n(kept.get(), n, uint8_t{1});
  // Classes share nothing. Their costs grow with about the square of their boxes: 5000 take 0.3 to 1.5 ms.
  double steps = 0;
  for (int64_t c = 0; c < classes.count(); ++c) {
    const double members = double(classes.begin[c + 1] - classes.begin[c]);
    steps += members * members / 32;
  }
  share(parallel_for, std::min(workers_for(steps), classes.count()), classes.count(), 1, [&](ItemQueue& queue) {
    for (int64_t c, end; queue.take(c, end);)
      suppress_class(boxes, classes.begin[c], classes.begin[c + 1], in, kept.get() + classes.begin[c]);
  });
  auto by_box = std::make_unique_for_overwrite<uint8_t[]>(n);
  for (int64_t i = 0; i < n; ++i) by_box[classes.boxes[i]] = kept[i];
  std::erase_if(out, [&](int64_t box) { return by_box[box] == 0; });
  return out;
}

template std::vector<int64_t> nms_rotated<float>(const NmsRotatedInput&, const float*, ParallelFor);
template std::vector<int64_t> nms_rotated<double>(const NmsRotatedInput&, const double*, ParallelFor);

}  // namespace structops::cpu
