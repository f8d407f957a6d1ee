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
namespace {

constexpr int64_t kPadding = 16;       // lanes of the widest vector
constexpr double kStepsToPrepare = 8;  // nanoseconds, with 8 lanes

}  // namespace

RotatedBoxes::RotatedBoxes(const double* boxes, int64_t n, const uint32_t* order, ParallelFor parallel_for)
    : size_(n), boxes_(std::make_unique_for_overwrite<RotatedBox[]>(n)), bounds_(n + kPadding) {
  share(parallel_for, workers_for(double(n) * kStepsToPrepare), n, 1024, [&](ItemQueue& queue) {
    for (int64_t first, last; queue.take(first, last);)
      STRUCTOPS_ISA_DISPATCH(prepare(boxes, order, first, last, boxes_.get(), bounds_));
  });
  for (int c = 0; c < 4; ++c) std::fill_n(bounds_.column(c) + n, kPadding, std::numeric_limits<float>::quiet_NaN());
}

template <class Out>
void box_iou_rotated(const RotatedBoxes& a, const RotatedBoxes& b, Out* out, ParallelFor parallel_for) {
  // Of boxes spread over an image a pair costs a nanosecond in the mean: 0.2 when apart, 5 to 10 when not.
  const int64_t rows = std::max<int64_t>(1, 65536 / std::max<int64_t>(b.size(), 1));
  share(parallel_for, workers_for(double(a.size()) * double(b.size()) / 2), a.size(), rows, [&](ItemQueue& queue) {
    for (int64_t first, last; queue.take(first, last);) STRUCTOPS_ISA_DISPATCH(iou_rows(a, b, first, last, out));
  });
}

template <class Out>
void box_iou_rotated_elementwise(const double* a, const double* b, int64_t n, Out* out, ParallelFor parallel_for) {
  share(parallel_for, workers_for(double(n) * 3 * kStepsToPrepare), n, 1024, [&](ItemQueue& queue) {
    for (int64_t first, last; queue.take(first, last);) STRUCTOPS_ISA_DISPATCH(iou_pairs(a, b, first, last, out));
  });
}

template void box_iou_rotated<float>(const RotatedBoxes&, const RotatedBoxes&, float*, ParallelFor);
template void box_iou_rotated<double>(const RotatedBoxes&, const RotatedBoxes&, double*, ParallelFor);
template void box_iou_rotated_elementwise<float>(const double*, const double*, int64_t, float*, ParallelFor);
template void box_iou_rotated_elementwise<double>(const double*, const double*, int64_t, double*, ParallelFor);

}  // namespace structops::cpu
