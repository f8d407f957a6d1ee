// Greedy non-maximum suppression: launchers, free of torch.
#pragma once
#include <cstdint>
#include <vector>

#include "common/cpu/parallel.h"
#include "nms/nms_filter.h"

namespace structops::cpu {

// boxes [N, 4] (x1, y1, x2, y2); scores [N]; idxs [N] class of each box, or null; N < 2^32.
// Returns the kept boxes' indices by falling score, ties by the lower index, NaN scores last.
// A box suppresses the later ones of its class whose IoU with it exceeds the threshold.
template <class T>
std::vector<int64_t> nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, double iou_threshold,
                         ParallelFor parallel_for);

// A batch of images with room for as many boxes each; N < 2^32.
template <class T>
struct NmsBatch {
  int64_t images, n;
  const T* boxes;       // [B, N, 4] (x1, y1, x2, y2)
  const T* scores;      // [B, N]
  const int64_t* idxs;  // [B, N] class of each box, or null
  NmsFilter filter;
};

// indices [B, max_output]: of each image what nms gives for the boxes that take part, cut off or filled up with -1;
// counts [B] of those that are indices. What it costs hardly depends on boxes that take no part.
template <class T>
void nms_padded(const NmsBatch<T>& batch, double iou_threshold, int64_t max_output, int64_t* indices, int64_t* counts,
                ParallelFor parallel_for);

}  // namespace structops::cpu
