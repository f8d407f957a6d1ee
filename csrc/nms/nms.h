// Greedy non-maximum suppression: launchers, free of torch.
#pragma once
#include <cstdint>
#include <vector>

#include "common/cpu/parallel.h"

namespace structops::cpu {

// boxes [N, 4] (x1, y1, x2, y2); scores [N]; idxs [N] class of each box, or null; N < 2^32.
// Returns the kept boxes' indices by falling score, ties by the lower index, NaN scores last.
// A box suppresses the later ones of its class whose IoU with it exceeds the threshold.
template <class T>
std::vector<int64_t> nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, double iou_threshold,
                         ParallelFor parallel_for);

}  // namespace structops::cpu
