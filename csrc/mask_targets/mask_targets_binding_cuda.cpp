// mask_targets for torch on CUDA: checks, allocation and one launch. Nothing here waits for the GPU.
#include <limits>

#include "common/cuda/binding.h"
#include "mask_targets/mask_targets_checks.h"
#include "mask_targets/mask_targets_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor mask_targets(const Tensor& gt_masks, const Tensor& boxes, const Tensor& matched, int64_t rows, int64_t columns) {
  check_mask_targets(gt_masks, boxes, matched, rows, columns);
  const DeviceGuard guard(boxes.get_device_index());
  const MaskTargetTensors t(gt_masks, boxes, matched, rows, columns);
  STRUCTOPS_CHECK(t.sizes.boxes <= std::numeric_limits<int>::max(), "mask_targets: at most 2^31 - 1 boxes");
  t.dispatch([&]<class S, class T>(const S* masks, T) {
    STD_CUDA_CHECK(cuda::mask_targets(t.sizes, masks, data<T>(t.boxes), data<int64_t>(t.matched),
                                      mutable_data<T>(t.targets), cuda::current_stream(boxes)));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return t.targets;
}

Tensor polygon_mask_targets(const Tensor& points, const Tensor& rings, const Tensor& objects, const Tensor& boxes,
                            const Tensor& matched, int64_t rows, int64_t columns) {
  check_polygon_mask_targets(points, rings, objects, boxes, matched, rows, columns);
  const DeviceGuard guard(boxes.get_device_index());
  const PolygonTargetTensors t(points, rings, objects, boxes, matched, rows, columns);
  const int64_t count = boxes.size(0);
  STRUCTOPS_CHECK(count <= std::numeric_limits<int>::max(), "polygon_mask_targets: at most 2^31 - 1 boxes");
  const auto run = [&]<class T>(T) {
    STD_CUDA_CHECK(cuda::polygon_mask_targets(t.polygons, data<double>(t.boxes), data<int64_t>(t.matched), count,
                                              static_cast<int>(rows), static_cast<int>(columns),
                                              mutable_data<T>(t.targets), cuda::current_stream(boxes)));
  };
  t.type == ScalarType::Double ? run(double()) : run(float());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return t.targets;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("mask_targets", TORCH_BOX(&mask_targets));
  m.impl("polygon_mask_targets", TORCH_BOX(&polygon_mask_targets));
}

}  // namespace structops
