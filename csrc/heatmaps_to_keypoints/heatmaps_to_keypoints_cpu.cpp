// RoIs shared between threads; what is done with one is compiled per instruction set.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/host_device.h"
#include "common/tensor.h"
#include "heatmaps_to_keypoints/heatmaps_to_keypoints.h"

#define STRUCTOPS_ISA_FILE "heatmaps_to_keypoints/heatmaps_to_keypoints_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class S, class T>
void heatmaps_to_keypoints(const HeatmapSizes& sizes, const S* maps, const T* rois, T* keypoints, T* scores,
                           ParallelFor parallel_for) {
  const int64_t pixels = static_cast<int64_t>(sizes.height) * sizes.width;
  // A map of 56 x 56 takes some 5 us.
  const double steps = 1.5 * static_cast<double>(sizes.rois * sizes.points * pixels);
  share(parallel_for, std::min(sizes.rois, workers_for(steps)), sizes.rois, 1, [&](ItemQueue& queue) {
    STRUCTOPS_ISA_DISPATCH(keypoints_of_rois(sizes, maps, rois, keypoints, scores, queue));
  });
}

#define INSTANTIATE(S, T) \
  template void heatmaps_to_keypoints<S, T>(const HeatmapSizes&, const S*, const T*, T*, T*, ParallelFor);
INSTANTIATE(Half, float)
INSTANTIATE(BFloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cpu
