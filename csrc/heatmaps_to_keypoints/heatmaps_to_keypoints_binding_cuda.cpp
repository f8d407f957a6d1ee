// heatmaps_to_keypoints for torch on CUDA: checks, allocation and one launch. Nothing here waits for the GPU.
#include <limits>
#include <tuple>

#include "common/cuda/binding.h"
#include "heatmaps_to_keypoints/heatmaps_to_keypoints_checks.h"
#include "heatmaps_to_keypoints/heatmaps_to_keypoints_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

std::tuple<Tensor, Tensor> heatmaps_to_keypoints(const Tensor& maps, const Tensor& rois) {
  check_heatmaps_to_keypoints(maps, rois);
  const DeviceGuard guard(maps.get_device_index());
  KeypointTensors t(maps, rois);
  const int64_t count = t.scores.numel();
  STRUCTOPS_CHECK(count <= std::numeric_limits<int>::max(), "heatmaps_to_keypoints: at most 2^31 - 1 maps, got ",
                  count);
  if (count == 0) return {t.keypoints, t.scores};
  STRUCTOPS_DISPATCH_FLOATING(t.maps.scalar_type(), "heatmaps_to_keypoints", [&] {
    using S = cuda::DeviceType<scalar_t>;
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    STD_CUDA_CHECK(cuda::heatmaps_to_keypoints(t.sizes, data<S>(t.maps), data<T>(t.rois), mutable_data<T>(t.keypoints),
                                               mutable_data<T>(t.scores), cuda::current_stream(t.maps)));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {t.keypoints, t.scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("heatmaps_to_keypoints", TORCH_BOX(&heatmaps_to_keypoints)); }

}  // namespace structops
