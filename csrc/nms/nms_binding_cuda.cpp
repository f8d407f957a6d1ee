// nms and batched_nms for torch on CUDA: checks, the kernels, and the one wait that an output of unknown length forces.
#include "nms/nms_binding_cuda.h"

#include "nms/nms_checks.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor run(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  Tensor kept = empty({n}, ScalarType::Long, boxes);
  if (n == 0) return kept;
  const Tensor count = empty({1}, ScalarType::Long, boxes);
  const cuda::NmsOutput out{n, false, mutable_data<int64_t>(kept), mutable_data<int64_t>(count)};
  std::optional<Tensor> classes;
  if (idxs != nullptr) classes = dense(*idxs, ScalarType::Long);
  const ScalarType type = wide_type(boxes, scores);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const auto suppress = type == ScalarType::Double ? cuda::suppress<double> : cuda::suppress<float>;
  suppress(b, s, classes, 1, n, NmsFilter{}, iou_threshold, out);
  int64_t length = 0;
  const cudaStream_t stream = cuda::current_stream(boxes);
  STD_CUDA_CHECK(cudaMemcpyAsync(&length, count.const_data_ptr(), sizeof(length), cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  return torch::stable::narrow(kept, 0, 0, length);
}

Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_nms("nms", boxes, scores, nullptr, iou_threshold);
  return run(boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_nms("batched_nms", boxes, scores, &idxs, iou_threshold);
  return run(boxes, scores, &idxs, iou_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("nms", TORCH_BOX(&nms));
  m.impl("batched_nms", TORCH_BOX(&batched_nms));
}

}  // namespace structops
