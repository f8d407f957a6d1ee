// Matching anchors to ground truths by IoU: parameters and the CPU launcher, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

// What an anchor without a match gets instead of an index: torchvision's Matcher has the same numbers.
constexpr int64_t kBelowLowThreshold = -1, kBetweenThresholds = -2;

struct MatchParams {
  int64_t images, truths, anchors;  // truths: rows for each image, valid or not
  bool anchors_shared;              // one set of anchors for all images
  double high_threshold, low_threshold;
  bool low_quality;
};

// How many of an image's rows are ground truths. Counts out of range are cut: looking would cost a GPU a sync.
#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_ON_CPU)
__host__ __device__
#endif
    inline int64_t truths_of(const MatchParams& p, const int64_t* valid, int64_t image) {
  const int64_t count = valid == nullptr ? p.truths : valid[image];
  return count < 0 ? 0 : count > p.truths ? p.truths : count;
}

namespace cpu {

// truths [images, truths, 4], anchors [images or 1, anchors, 4] (x1, y1, x2, y2), dense; valid [images] or null.
// matches, ious [images, anchors], written.
template <class T>
void match_boxes(const MatchParams& p, const T* truths, const T* anchors, const int64_t* valid, int64_t* matches,
                 T* ious, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
