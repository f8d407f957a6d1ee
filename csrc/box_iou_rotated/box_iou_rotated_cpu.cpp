// Preparation of rotated boxes, and rows of the matrix shared between threads.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "box_iou_rotated/box_iou_rotated.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/tensor.h"

#define STRUCTOPS_ISA_FILE "box_iou_rotated/box_iou_rotated_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

RotatedBoxes::RotatedBoxes(const double* boxes, int64_t n, const uint32_t* order, ParallelFor parallel_for)
    : size_(n),
      boxes_(std::make_unique_for_overwrite<RotatedBox[]>(n)),
      bounds_(std::make_unique_for_overwrite<float[]>(4 * (n + kPadding))) {
  const auto prepare = [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const double* b = boxes + 5 * (order == nullptr ? i : static_cast<int64_t>(order[i]));
      boxes_[i] = rotated_box(b[0], b[1], b[2], b[3], b[4]);
      const RotatedBounds around = rotated_bounds(boxes_[i]);
      bounds(0)[i] = around.x1, bounds(1)[i] = around.y1, bounds(2)[i] = around.x2, bounds(3)[i] = around.y2;
    }
  };
  // 40 ns a box, most of it for the sine.
  parallel_for(
      n, 4096, [](int64_t first, int64_t last, void* p) { (*static_cast<decltype(prepare)*>(p))(first, last); },
      const_cast<void*>(static_cast<const void*>(&prepare)));
  for (int c = 0; c < 4; ++c) std::fill_n(bounds(c) + n, kPadding, std::numeric_limits<float>::quiet_NaN());
}

template <class Out>
void box_iou_rotated(const RotatedBoxes& a, const RotatedBoxes& b, Out* out, ParallelFor parallel_for) {
  // A pair costs 0.2 ns when apart and 5 ns when not; rows differ, so threads take a few at a time.
  const int64_t rows = std::max<int64_t>(1, 65536 / std::max<int64_t>(b.size(), 1));
  share(parallel_for, workers_for(double(a.size()) * double(b.size())), a.size(), rows, [&](ItemQueue& queue) {
    for (int64_t first, last; queue.take(first, last);) STRUCTOPS_ISA_DISPATCH(iou_rows(a, b, first, last, out));
  });
}

template <class Out>
void box_iou_rotated_elementwise(const double* a, const double* b, int64_t n, Out* out, ParallelFor parallel_for) {
  share(parallel_for, workers_for(double(n) * 100), n, 1024, [&](ItemQueue& queue) {
    for (int64_t first, last; queue.take(first, last);) STRUCTOPS_ISA_DISPATCH(iou_pairs(a, b, first, last, out));
  });
}

template void box_iou_rotated<float>(const RotatedBoxes&, const RotatedBoxes&, float*, ParallelFor);
template void box_iou_rotated<double>(const RotatedBoxes&, const RotatedBoxes&, double*, ParallelFor);
template void box_iou_rotated_elementwise<float>(const double*, const double*, int64_t, float*, ParallelFor);
template void box_iou_rotated_elementwise<double>(const double*, const double*, int64_t, double*, ParallelFor);

}  // namespace structops::cpu
