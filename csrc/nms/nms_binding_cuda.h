// Greedy suppression on CUDA tensors: torch's stable sorts and the kernels, for one image or for many.
#pragma once
#include <array>
#include <optional>

#include "common/cuda/binding.h"
#include "nms/nms_cuda.h"

namespace structops::cuda {

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

struct SortedByClass {
  Sorted by_score;                 // keys, and the box of each rank
  std::optional<Sorted> by_class;  // classes, and the rank of each place, where places are sorted by class, then rank
};

// scores [B, N] of type T, classes [B, N] of int64 or none, all dense.
template <class T>
SortedByClass sort_by_class(const Tensor& scores, const OptionalTensor& classes, int64_t images, int64_t n,
                            const NmsFilter& filter) {
  const cudaStream_t stream = current_stream(scores);
  const ScalarType key_type = sizeof(NmsKey<T>) == 4 ? ScalarType::Int : ScalarType::Long;
  const Tensor keys = empty({images, n}, key_type, scores);
  STD_CUDA_CHECK(nms_keys<T>(data<T>(scores), images, n, filter, mutable_data<NmsKey<T>>(keys), stream));
  SortedByClass sorted{sort_rows(keys), std::nullopt};
  if (classes) {
    const Tensor in_order = empty({images, n}, ScalarType::Long, scores);
    STD_CUDA_CHECK(nms_gather_classes(data<int64_t>(*classes), data<int64_t>(sorted.by_score.indices), images, n,
                                      mutable_data<int64_t>(in_order), stream));
    sorted.by_class = sort_rows(in_order);
  }
  return sorted;
}

// The same with boxes [B, N, 4] of type T, dense. Queues everything on the current stream and waits for nothing.
template <class T>
void suppress(const Tensor& boxes, const Tensor& scores, const OptionalTensor& classes, int64_t images, int64_t n,
              const NmsFilter& filter, double iou_threshold, const NmsOutput& out) {
  const auto [by_score, by_class] = sort_by_class<T>(scores, classes, images, n, filter);
  const NmsInput<T> in{images,
                       n,
                       data<int64_t>(by_score.indices),
                       by_class ? data<int64_t>(by_class->indices) : nullptr,
                       by_class ? data<int64_t>(by_class->values) : nullptr,
                       data<NmsKey<T>>(by_score.values),
                       iou_threshold};
  const Tensor workspace = empty({static_cast<int64_t>(nms_workspace<T>(images, n))}, ScalarType::Byte, boxes);
  STD_CUDA_CHECK(nms<T>(in, data<T>(boxes), workspace.mutable_data_ptr(), out, current_stream(boxes)));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace structops::cuda
