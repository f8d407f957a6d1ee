// ps_roi_align for torch on CUDA.
#include "ps_roi_align/ps_roi_binding_cuda.h"

namespace structops {
namespace {

constexpr PsRoiOp kOp{"ps_roi_align", "ps_roi_align_backward", false};

Tensor ps_roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                    int64_t pooled_width, int64_t sampling_ratio) {
  return ps_roi_forward(kOp, input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio);
}

Tensor ps_roi_align_backward(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_height,
                             int64_t pooled_width, int64_t batch_size, int64_t channels, int64_t height, int64_t width,
                             int64_t sampling_ratio) {
  return ps_roi_backward(kOp, grad, rois, spatial_scale, pooled_height, pooled_width, batch_size, channels, height,
                         width, sampling_ratio);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("ps_roi_align", TORCH_BOX(&ps_roi_align));
  m.impl("ps_roi_align_backward", TORCH_BOX(&ps_roi_align_backward));
}

}  // namespace structops
