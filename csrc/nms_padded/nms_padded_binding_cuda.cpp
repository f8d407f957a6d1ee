// nms_padded for torch on CUDA: checks, allocation, then the kernels of nms. Nothing here waits for the GPU, so the op
// can be captured in a CUDA graph.
#include <tuple>

#include "nms/nms_binding_cuda.h"
#include "nms_padded/checks.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

OptionalTensor dense(const OptionalTensor& t) {
  if (!t) return t;
  return cuda::dense(*t, t->scalar_type() == ScalarType::Bool ? ScalarType::Bool : ScalarType::Long);
}

std::tuple<Tensor, Tensor> nms_padded(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs,
                                      const OptionalTensor& valid, double iou_threshold, int64_t max_output,
                                      std::optional<double> score_threshold) {
  check_nms_padded(boxes, scores, idxs, valid, iou_threshold, max_output);
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t images = boxes.size(0), n = boxes.size(1);
  Tensor indices = cuda::empty_like_device({images, max_output}, ScalarType::Long, boxes);
  Tensor counts = cuda::empty_like_device({images}, ScalarType::Long, boxes);
  if (images == 0) return {indices, counts};
  const cuda::NmsOutput out{max_output, true, static_cast<int64_t*>(indices.mutable_data_ptr()),
                            static_cast<int64_t*>(counts.mutable_data_ptr())};
  const ScalarType type = nms_type(boxes, scores);
  const Tensor b = cuda::dense(boxes, type), s = cuda::dense(scores, type);
  const OptionalTensor c = dense(idxs), v = dense(valid);
  const auto suppress = type == ScalarType::Double ? cuda::suppress<double> : cuda::suppress<float>;
  suppress(b, s, c, images, n, nms_filter(v, score_threshold), iou_threshold, out);
  return {indices, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("nms_padded", TORCH_BOX(&nms_padded)); }

}  // namespace structops
