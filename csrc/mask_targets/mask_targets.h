// Targets of a mask head: what CPU and GPU share, and the CPU's launchers; free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"
#include "common/roi_axis.h"

namespace structops {

// masks [G, H, W], boxes [K, 4] (x1, y1, x2, y2), matched [K] -> targets [K, rows, columns].
struct MaskTargetSizes {
  int64_t masks, height, width, boxes;
  int rows, columns;
};

// Bins of a box along an axis, as torchvision's RoI Align with aligned=False and an adaptive number of samples has
// them.
STRUCTOPS_HOST_DEVICE RoiAxis mask_axis(double low, double high, int bins, int64_t extent) {
  return RoiAxis(low, high, 1.0, bins, 0, false, extent);
}

namespace cpu {

// S: how masks are stored (uint8_t, float or double); T: float or double, of boxes and targets.
template <class S, class T>
void mask_targets(const MaskTargetSizes& sizes, const S* masks, const T* boxes, const int64_t* matched, T* targets,
                  ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
