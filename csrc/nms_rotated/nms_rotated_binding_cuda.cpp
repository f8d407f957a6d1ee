// nms_rotated and batched_nms_rotated for torch on CUDA: checks, torch's stable sort, the kernels, and torch's
// selection of what is kept, which waits for the GPU: an output of unknown length forces that.
#include "common/aten.h"
#include "nms/nms_binding_cuda.h"
#include "nms_rotated/nms_rotated_checks.h"
#include "nms_rotated/nms_rotated_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor keep(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  check_nms_rotated(op, boxes, scores, idxs, iou_threshold);
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  if (n == 0) return empty({0}, ScalarType::Long, boxes);
  const cudaStream_t stream = cuda::current_stream(boxes);
  const Tensor b = dense(boxes, wide_type(boxes)), s = dense(scores, wide_type(scores));
  const OptionalTensor classes = idxs == nullptr ? std::nullopt : OptionalTensor(dense(*idxs, ScalarType::Long));
  const auto sort = s.scalar_type() == ScalarType::Double ? cuda::sort_by_class<double> : cuda::sort_by_class<float>;
  const auto [by_score, by_class] = sort(s, classes, 1, n, NmsFilter{});
  const cuda::NmsRotatedInput in{n, data<int64_t>(by_score.indices),
                                 by_class ? data<int64_t>(by_class->indices) : nullptr,
                                 by_class ? data<int64_t>(by_class->values) : nullptr, iou_threshold};
  const Tensor workspace = empty({static_cast<int64_t>(cuda::nms_rotated_workspace(n))}, ScalarType::Byte, boxes);
  const Tensor kept = empty({n}, ScalarType::Bool, boxes);
  bool* flags = mutable_data<bool>(kept);
  if (b.scalar_type() == ScalarType::Double)
    STD_CUDA_CHECK(cuda::nms_rotated(in, data<double>(b), workspace.mutable_data_ptr(), flags, stream));
  else
    STD_CUDA_CHECK(cuda::nms_rotated(in, data<float>(b), workspace.mutable_data_ptr(), flags, stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return call_aten("aten::masked_select", "", by_score.indices, kept);
}

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return keep("nms_rotated", boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms_rotated(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return keep("batched_nms_rotated", boxes, scores, &idxs, iou_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("nms_rotated", TORCH_BOX(&nms_rotated));
  m.impl("batched_nms_rotated", TORCH_BOX(&batched_nms_rotated));
}

}  // namespace structops
