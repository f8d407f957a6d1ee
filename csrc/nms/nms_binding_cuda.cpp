// nms and batched_nms for torch on CUDA: checks, torch's stable sort, the kernels, and the one wait
// that an output of unknown length forces.
#include <array>
#include <optional>

#include "common/cuda/binding.h"
#include "nms/nms_checks.h"
#include "nms/nms_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor dense(const Tensor& t, ScalarType type) { return torch::stable::contiguous(torch::stable::to(t, type)); }

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

template <class T, class Key>
Tensor keep(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold, ScalarType type,
            ScalarType key_type) {
  const int64_t n = boxes.size(0);
  const cudaStream_t stream = cuda::current_stream(boxes);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const Tensor keys = empty({n}, key_type, boxes);
  STD_CUDA_CHECK(
      cuda::nms_keys(static_cast<const T*>(s.const_data_ptr()), n, static_cast<Key*>(keys.mutable_data_ptr()), stream));
  const Tensor by_score = sort(keys).indices;
  cuda::NmsInput in{n, int64s(by_score), nullptr, nullptr, iou_threshold};
  std::optional<Sorted> by_class;
  if (idxs != nullptr) {
    const Tensor all = dense(*idxs, ScalarType::Long), classes = empty({n}, ScalarType::Long, boxes);
    STD_CUDA_CHECK(cuda::nms_gather_classes(int64s(all), int64s(by_score), n,
                                            static_cast<int64_t*>(classes.mutable_data_ptr()), stream));
    by_class = sort(classes);
    in.by_class = int64s(by_class->indices);
    in.classes = int64s(by_class->values);
  }
  const Tensor workspace = empty({static_cast<int64_t>(cuda::nms_workspace<T>(n))}, ScalarType::Byte, boxes);
  Tensor kept = empty({n}, ScalarType::Long, boxes);
  const Tensor count = empty({1}, ScalarType::Long, boxes);
  STD_CUDA_CHECK(cuda::nms(in, static_cast<const T*>(b.const_data_ptr()), workspace.mutable_data_ptr(),
                           static_cast<int64_t*>(kept.mutable_data_ptr()),
                           static_cast<int64_t*>(count.mutable_data_ptr()), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  int64_t length = 0;
  STD_CUDA_CHECK(cudaMemcpyAsync(&length, count.const_data_ptr(), sizeof(length), cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  return torch::stable::narrow(kept, 0, 0, length);
}

Tensor run(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  const DeviceGuard guard(boxes.get_device_index());
  if (boxes.size(0) == 0) return empty({0}, ScalarType::Long, boxes);
  // Half boxes are compared in float32, which holds them exactly; double stays double.
  return boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double
             ? keep<double, int64_t>(boxes, scores, idxs, iou_threshold, ScalarType::Double, ScalarType::Long)
             : keep<float, int32_t>(boxes, scores, idxs, iou_threshold, ScalarType::Float, ScalarType::Int);
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
