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

template <class T>
void polygon_mask_targets(const Polygons& polygons, const double* boxes, const int64_t* matched, int64_t count,
                          int rows, int columns, T* targets, ParallelFor parallel_for) {
  // Some 5 us, of an object of a hundred points.
  const double steps = 5000.0 * static_cast<double>(count);
  share(parallel_for, std::min(count, workers_for(steps)), count, 1, [&](ItemQueue& queue) {
    STRUCTOPS_ISA_DISPATCH(polygon_targets_of_boxes(polygons, boxes, matched, rows, columns, targets, queue));
  });
}

template void polygon_mask_targets<float>(const Polygons&, const double*, const int64_t*, int64_t, int, int, float*,
                                          ParallelFor);
template void polygon_mask_targets<double>(const Polygons&, const double*, const int64_t*, int64_t, int, int, double*,
                                           ParallelFor);

#define INSTANTIATE(S, T) \
  template void mask_targets<S, T>(const MaskTargetSizes&, const S*, const T*, const int64_t*, T*, ParallelFor);
INSTANTIATE(uint8_t, float)
INSTANTIATE(uint8_t, double)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cpu
