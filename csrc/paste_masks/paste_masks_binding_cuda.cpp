// paste_masks for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits for the GPU.
#include "common/cuda/binding.h"
#include "paste_masks/paste_masks_checks.h"
#include "paste_masks/paste_masks_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width,
                   std::optional<double> threshold, bool packed, int64_t padding) {
  const PasteParams p = check_paste_masks(masks, boxes, height, width, threshold, packed, padding);
  const DeviceGuard guard(masks.get_device_index());
  Tensor output = empty_pasted(p, masks);
  if (output.numel() == 0) return output;
  const ScalarType type = wide_type(masks);
  const Tensor m = dense(masks, type), b = dense(boxes, wide_type(boxes));
  const auto run = [&]<class T>(T) {
    STD_CUDA_CHECK(
        cuda::paste_masks(p, data<T>(m), b.const_data_ptr(), output.mutable_data_ptr(), cuda::current_stream(masks)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("paste_masks", TORCH_BOX(&paste_masks)); }

}  // namespace structops
