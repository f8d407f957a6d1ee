// nms_rotated and batched_nms_rotated for torch on CUDA: checks, torch's stable sort, the kernels, and torch's
// selection of what is kept, which waits for the GPU: an output of unknown length forces that.
#include <array>
#include <optional>

#include "nms/nms_binding_cuda.h"
#include "nms_rotated/nms_rotated_checks.h"
#include "nms_rotated/nms_rotated_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor select(const Tensor& values, const Tensor& mask) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(values), torch::stable::detail::from(mask)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::masked_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

template <class T>
Tensor by_falling(const Tensor& scores, ScalarType key_type, cudaStream_t stream) {
  const int64_t n = scores.size(0);
  const Tensor keys = cuda::empty_like_device({n}, key_type, scores);
  STD_CUDA_CHECK(cuda::nms_keys<T>(cuda::data<T>(scores), 1, n, NmsFilter{},
                                   static_cast<cuda::NmsKey<T>*>(keys.mutable_data_ptr()), stream));
  return cuda::sort_rows(keys).indices;
}

Tensor keep(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  check_nms_rotated(op, boxes, scores, idxs, iou_threshold);
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  if (n == 0) return cuda::empty_like_device({0}, ScalarType::Long, boxes);
  const cudaStream_t stream = cuda::current_stream(boxes);
  const Tensor b = dense(boxes, wide_type(boxes)), s = dense(scores, wide_type(scores));
  const Tensor by_score = s.scalar_type() == ScalarType::Double ? by_falling<double>(s, ScalarType::Long, stream)
                                                                : by_falling<float>(s, ScalarType::Int, stream);
  cuda::NmsRotatedInput in{n, cuda::data<int64_t>(by_score), nullptr, nullptr, iou_threshold};
  std::optional<cuda::Sorted> by_class;
  if (idxs != nullptr) {
    const Tensor all = dense(*idxs, ScalarType::Long), classes = cuda::empty_like_device({n}, ScalarType::Long, boxes);
    STD_CUDA_CHECK(cuda::nms_gather_classes(cuda::data<int64_t>(all), cuda::data<int64_t>(by_score), 1, n,
                                            static_cast<int64_t*>(classes.mutable_data_ptr()), stream));
    by_class = cuda::sort_rows(classes);
    in.by_class = cuda::data<int64_t>(by_class->indices);
    in.classes = cuda::data<int64_t>(by_class->values);
  }
  const Tensor workspace =
      cuda::empty_like_device({static_cast<int64_t>(cuda::nms_rotated_workspace(n))}, ScalarType::Byte, boxes);
  const Tensor kept = cuda::empty_like_device({n}, ScalarType::Bool, boxes);
  bool* flags = static_cast<bool*>(kept.mutable_data_ptr());
  if (b.scalar_type() == ScalarType::Double)
    STD_CUDA_CHECK(cuda::nms_rotated(in, cuda::data<double>(b), workspace.mutable_data_ptr(), flags, stream));
  else
    STD_CUDA_CHECK(cuda::nms_rotated(in, cuda::data<float>(b), workspace.mutable_data_ptr(), flags, stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return select(by_score, kept);
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
