// nms_padded for torch on CUDA: checks, allocation, then the kernels of nms. Nothing here waits for the GPU, so the op
// can be captured in a CUDA graph.
#include <tuple>

#include "nms/nms_binding_cuda.h"
#include "nms_padded/checks.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

std::tuple<Tensor, Tensor> nms_padded(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs,
                                      const OptionalTensor& valid, double iou_threshold, int64_t max_output,
                                      std::optional<double> score_threshold) {
  check_nms_padded(boxes, scores, idxs, valid, iou_threshold, max_output);
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t images = boxes.size(0), n = boxes.size(1);
  Tensor indices = empty({images, max_output}, ScalarType::Long, boxes);
  Tensor counts = empty({images}, ScalarType::Long, boxes);
  if (images == 0) return {indices, counts};
  const cuda::NmsOutput out{max_output, true, mutable_data<int64_t>(indices), mutable_data<int64_t>(counts)};
  const ScalarType type = wide_type(boxes, scores);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const OptionalTensor c = dense(idxs, ScalarType::Long), v = dense_valid(valid);
  const auto suppress = type == ScalarType::Double ? cuda::suppress<double> : cuda::suppress<float>;
  suppress(b, s, c, images, n, nms_filter(v, score_threshold), iou_threshold, out);
  return {indices, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("nms_padded", TORCH_BOX(&nms_padded)); }

}  // namespace structops
