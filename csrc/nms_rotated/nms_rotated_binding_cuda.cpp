// nms_rotated and batched_nms_rotated for torch on CUDA: checks, torch's stable sort, the kernels, and torch's
// selection of what is kept, which waits for the GPU: an output of unknown length forces that.
#include <array>
#include <optional>

#include "common/cuda/binding.h"
#include "nms/nms_cuda.h"
#include "nms_rotated/nms_rotated_checks.h"
#include "nms_rotated/nms_rotated_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor empty(std::initializer_list<int64_t> size, ScalarType type, const Tensor& like) {
  return torch::stable::empty(size, type, std::nullopt, like.device());
}

const int64_t* int64s(const Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); }

struct Sorted {
  Tensor values, indices;  // [N]
};

// Rising, equal values in the order they had.
Sorted sort(const Tensor& values) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(values),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t(-1)), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

Tensor select(const Tensor& values, const Tensor& mask) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(values), torch::stable::detail::from(mask)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::masked_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

template <class T, class Key>
Tensor by_falling(const Tensor& scores, ScalarType key_type, cudaStream_t stream) {
  const int64_t n = scores.size(0);
  const Tensor keys = empty({n}, key_type, scores);
  STD_CUDA_CHECK(cuda::nms_keys(static_cast<const T*>(scores.const_data_ptr()), n,
                                static_cast<Key*>(keys.mutable_data_ptr()), stream));
  return sort(keys).indices;
}

Tensor keep(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  check_nms_rotated(op, boxes, scores, idxs, iou_threshold);
  const DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  if (n == 0) return empty({0}, ScalarType::Long, boxes);
  const cudaStream_t stream = cuda::current_stream(boxes);
  const Tensor b = dense(boxes, wide_type(boxes)), s = dense(scores, wide_type(scores));
  const Tensor by_score = s.scalar_type() == ScalarType::Double
                              ? by_falling<double, int64_t>(s, ScalarType::Long, stream)
                              : by_falling<float, int32_t>(s, ScalarType::Int, stream);
  cuda::NmsRotatedInput in{n, int64s(by_score), nullptr, nullptr, iou_threshold};
  std::optional<Sorted> by_class;
  if (idxs != nullptr) {
    const Tensor all = dense(*idxs, ScalarType::Long), classes = empty({n}, ScalarType::Long, boxes);
    STD_CUDA_CHECK(cuda::nms_gather_classes(int64s(all), int64s(by_score), n,
                                            static_cast<int64_t*>(classes.mutable_data_ptr()), stream));
    by_class = sort(classes);
    in.by_class = int64s(by_class->indices);
    in.classes = int64s(by_class->values);
  }
  const Tensor workspace = empty({static_cast<int64_t>(cuda::nms_rotated_workspace(n))}, ScalarType::Byte, boxes);
  const Tensor kept = empty({n}, ScalarType::Bool, boxes);
  bool* flags = static_cast<bool*>(kept.mutable_data_ptr());
  if (b.scalar_type() == ScalarType::Double)
    STD_CUDA_CHECK(cuda::nms_rotated(in, static_cast<const double*>(b.const_data_ptr()), workspace.mutable_data_ptr(),
                                     flags, stream));
  else
    STD_CUDA_CHECK(cuda::nms_rotated(in, static_cast<const float*>(b.const_data_ptr()), workspace.mutable_data_ptr(),
                                     flags, stream));
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
