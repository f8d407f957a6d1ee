// ps_roi_pool for torch on CUDA. Its kernels are those of ps_roi_align.
#include "ps_roi_align/ps_roi_binding_cuda.h"

namespace structops {
namespace {

constexpr PsRoiOp kOp{"ps_roi_pool", "ps_roi_pool_backward", true};

Tensor ps_roi_pool(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                   int64_t pooled_width) {
  return ps_roi_forward(kOp, input, rois, spatial_scale, pooled_height, pooled_width, 0);
}

Tensor ps_roi_pool_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                            int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width) {
  return ps_roi_backward(kOp, grad, rois, spatial_scale, pooled_height, pooled_width, batch_size, channels, height,
                         width, 0);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("ps_roi_pool", TORCH_BOX(&ps_roi_pool));
  m.impl("ps_roi_pool_backward", TORCH_BOX(&ps_roi_pool_backward));
}

}  // namespace structops
