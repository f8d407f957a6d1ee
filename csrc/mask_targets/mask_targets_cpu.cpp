// Boxes shared between threads; what is done with one is compiled per instruction set.
#include <algorithm>
#include <limits>
#include <vector>

#include "mask_targets/mask_targets.h"

#define STRUCTOPS_ISA_FILE "mask_targets/mask_targets_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class S, class T>
void mask_targets(const MaskTargetSizes& sizes, const S* masks, const T* boxes, const int64_t* matched, T* targets,
                  ParallelFor parallel_for) {
  // A target of 28 x 28 takes some 5 us.
  const double steps = 6.0 * static_cast<double>(sizes.boxes) * sizes.rows * sizes.columns;
  share(parallel_for, std::min(sizes.boxes, workers_for(steps)), sizes.boxes, 1, [&](ItemQueue& queue) {
    STRUCTOPS_ISA_DISPATCH(targets_of_boxes(sizes, masks, boxes, matched, targets, queue));
  });
}

#define INSTANTIATE(S, T) \
  template void mask_targets<S, T>(const MaskTargetSizes&, const S*, const T*, const int64_t*, T*, ParallelFor);
INSTANTIATE(uint8_t, float)
INSTANTIATE(uint8_t, double)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cpu
