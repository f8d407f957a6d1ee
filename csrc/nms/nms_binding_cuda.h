// Greedy suppression on CUDA tensors: torch's stable sorts and the kernels, for one image or for many.
#pragma once
#include <array>
#include <initializer_list>
#include <optional>

#include "common/cuda/binding.h"
#include "nms/nms_cuda.h"

namespace structops::cuda {

inline Tensor empty_like_device(std::initializer_list<int64_t> size, ScalarType type, const Tensor& like) {
  return torch::stable::empty(size, type, std::nullopt, like.device());
}

inline Tensor dense(const Tensor& t, ScalarType type) { return torch::stable::contiguous(torch::stable::to(t, type)); }

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

struct Sorted {
  Tensor values, indices;  // [B, N]
};

// Each row rising, equal values in the order they had.
inline Sorted sort_rows(const Tensor& values) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(values),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t(-1)), torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

// boxes [B, N, 4] and scores [B, N] of type T, classes [B, N] of int64 or none, all dense. Queues everything on the
// current stream and waits for nothing.
template <class T>
void suppress(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& classes, int64_t images,
              int64_t n, const NmsFilter& filter, double iou_threshold, const NmsOutput& out) {
  const cudaStream_t stream = current_stream(boxes);
  const ScalarType key_type = sizeof(NmsKey<T>) == 4 ? ScalarType::Int : ScalarType::Long;
  const Tensor keys = empty_like_device({images, n}, key_type, boxes);
  STD_CUDA_CHECK(
      nms_keys<T>(data<T>(scores), images, n, filter, static_cast<NmsKey<T>*>(keys.mutable_data_ptr()), stream));
  const Sorted by_score = sort_rows(keys);
  const int64_t* order = data<int64_t>(by_score.indices);
  NmsInput<T> in{images, n, order, nullptr, nullptr, data<NmsKey<T>>(by_score.values), iou_threshold};
  std::optional<Sorted> by_class;
  if (classes) {
    const Tensor in_order = empty_like_device({images, n}, ScalarType::Long, boxes);
    STD_CUDA_CHECK(nms_gather_classes(data<int64_t>(*classes), order, images, n,
                                      static_cast<int64_t*>(in_order.mutable_data_ptr()), stream));
    by_class = sort_rows(in_order);
    in.by_class = data<int64_t>(by_class->indices);
    in.classes = data<int64_t>(by_class->values);
  }
  const Tensor workspace =
      empty_like_device({static_cast<int64_t>(nms_workspace<T>(images, n))}, ScalarType::Byte, boxes);
  STD_CUDA_CHECK(nms<T>(in, data<T>(boxes), workspace.mutable_data_ptr(), out, stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace structops::cuda
