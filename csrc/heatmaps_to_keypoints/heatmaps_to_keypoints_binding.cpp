// heatmaps_to_keypoints for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <tuple>
#include <type_traits>

#include "heatmaps_to_keypoints/heatmaps_to_keypoints_checks.h"

namespace structops {
namespace {

std::tuple<Tensor, Tensor> heatmaps_to_keypoints(const Tensor& maps, const Tensor& rois) {
  check_heatmaps_to_keypoints(maps, rois);
  KeypointTensors t(maps, rois);
  STRUCTOPS_DISPATCH_FLOATING(t.maps.scalar_type(), "heatmaps_to_keypoints", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    cpu::heatmaps_to_keypoints(t.sizes, data<scalar_t>(t.maps), data<T>(t.rois), mutable_data<T>(t.keypoints),
                               mutable_data<T>(t.scores), parallel_for);
  });
  return {t.keypoints, t.scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("heatmaps_to_keypoints(Tensor maps, Tensor rois) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("heatmaps_to_keypoints", TORCH_BOX(&heatmaps_to_keypoints)); }

}  // namespace structops
