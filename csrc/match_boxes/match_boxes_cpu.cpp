// Blocks of anchors shared between threads. The matrix of IoUs is never made: a block keeps its best in registers and
// L1, and what crosses blocks is the best IoU of each ground truth in each of them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/tensor.h"
#include "match_boxes/match_boxes.h"

namespace structops::cpu {
// Anchors that lie next to each other in memory lie next to each other in the image. The smaller a block, the fewer
// ground truths meet its bounding box; the larger, the less that costs to find out. 268,569 anchors of a pyramid with
// 50 ground truths: 0.61 ms by 256, 0.51 by 512, 0.47 by 1024, 0.45 by 2048, which no longer fit into L1.
constexpr int64_t kMatchBlock = 1024;
}  // namespace structops::cpu

#define STRUCTOPS_ISA_FILE "match_boxes/match_boxes_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
void match_boxes(const MatchParams& p, const T* truths, const T* anchors, const int64_t* valid, int64_t* matches,
                 T* ious, ParallelFor parallel_for) {
  const int64_t blocks = (p.anchors + kMatchBlock - 1) / kMatchBlock;
  // As torch compares a tensor with a number: in the tensor's type.
  const T high = static_cast<T>(p.high_threshold), low = static_cast<T>(p.low_threshold);
  // Each ground truth's best IoU in each block, [images, blocks, truths], and in all, [images, truths].
  std::unique_ptr<T[]> block_best, truth_best;
  if (p.low_quality) {
    block_best = std::make_unique_for_overwrite<T[]>(p.images * blocks * p.truths);
    truth_best = std::make_unique<T[]>(p.images * p.truths);
  }
  const auto for_each_block = [&](const auto& body) {
    // 268,569 anchors of a pyramid and 50 ground truths take 0.5 ms on one thread (in random order 3.6). Two would save
    // 0.2, and have cost 15 where another process was on the second core: a thread for each quarter of a millisecond.
    const double steps = static_cast<double>(p.images) * p.anchors * (p.truths / 35.0 + 0.4) / 4;
    share(parallel_for, workers_for(steps), p.images * blocks, 1, [&](ItemQueue& queue) {
      for (int64_t item, end; queue.take(item, end);) {
        const int64_t image = item / blocks, first = item % blocks * kMatchBlock;
        const int64_t out = image * p.anchors + first;
        body(item, image, truths_of(p, valid, image), std::min(kMatchBlock, p.anchors - first),
             anchors + 4 * (p.anchors_shared ? first : out), out);
      }
    });
  };
  for_each_block([&](int64_t item, int64_t image, int64_t count, int64_t size, const T* boxes, int64_t out) {
    if (count == 0) {
      std::fill_n(matches + out, size, kBelowLowThreshold);
      std::fill_n(ious + out, size, T(0));
      return;
    }
    T* here = p.low_quality ? block_best.get() + item * p.truths : nullptr;
    STRUCTOPS_ISA_DISPATCH(
        match_block<T>(boxes, size, truths + 4 * image * p.truths, count, ious + out, matches + out, here));
    if (!p.low_quality) {
      STRUCTOPS_ISA_DISPATCH(label_block<T>(ious + out, nullptr, size, high, low, matches + out));
    }
  });
  if (!p.low_quality) return;
  for (int64_t item = 0; item < p.images * blocks; ++item) {
    T* best = truth_best.get() + item / blocks * p.truths;
    const T* here = block_best.get() + item * p.truths;
    for (int64_t t = 0; t < truths_of(p, valid, item / blocks); ++t) best[t] = std::max(best[t], here[t]);
  }
  for_each_block([&](int64_t item, int64_t image, int64_t count, int64_t size, const T* boxes, int64_t out) {
    if (count == 0) return;
    STRUCTOPS_ISA_DISPATCH(restore_and_label_block<T>(
        boxes, size, truths + 4 * image * p.truths, count, truth_best.get() + image * p.truths,
        block_best.get() + item * p.truths, ious + out, high, low, matches + out));
  });
}

template void match_boxes<float>(const MatchParams&, const float*, const float*, const int64_t*, int64_t*, float*,
                                 ParallelFor);
template void match_boxes<double>(const MatchParams&, const double*, const double*, const int64_t*, int64_t*, double*,
                                  ParallelFor);

}  // namespace structops::cpu
