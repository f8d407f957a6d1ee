// Soft non-maximum suppression: launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"
#include "soft_nms/soft_nms_rule.h"

namespace structops::cpu {

// boxes [N, 4] (x1, y1, x2, y2); scores [N]; idxs [N] class of each box, or null; N < 2^32.
// indices [most] and decayed [most]: the boxes taken, by falling score when taken, ties by the lower index; filled up
// with -1 and 0. Returns how many were taken.
template <class T>
int64_t soft_nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, const SoftNmsRule<T>& rule,
                 int64_t most, int64_t* indices, T* decayed, ParallelFor parallel_for);

}  // namespace structops::cpu
