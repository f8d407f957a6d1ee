// soft_nms for torch on CUDA: checks, allocation, torch's stable sorts and the kernels. Nothing here waits for the GPU.
#include <tuple>

#include "nms/nms_binding_cuda.h"
#include "soft_nms/checks.h"
#include "soft_nms/soft_nms_cuda.h"

namespace structops {
namespace {

using cuda::data;
using torch::stable::accelerator::DeviceGuard;

template <class T>
T* written(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

template <class T>
void run(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& idxs, const SoftNmsRule<T>& rule,
         int64_t max_output, const Tensor& indices, const Tensor& decayed, const Tensor& count) {
  const int64_t n = boxes.size(0);
  const cudaStream_t stream = cuda::current_stream(boxes);
  cuda::SoftNmsInput<T> in{n, data<T>(boxes), data<T>(scores), nullptr, nullptr};
  std::optional<cuda::Sorted> by_class;
  if (idxs) {
    by_class = cuda::sort_rows(cuda::dense(*idxs, ScalarType::Long));
    in.order = data<int64_t>(by_class->indices);
    in.classes = data<int64_t>(by_class->values);
  }
  const Tensor workspace =
      cuda::empty_like_device({static_cast<int64_t>(cuda::soft_nms_workspace<T>(n))}, ScalarType::Byte, boxes);
  const Tensor result = cuda::empty_like_device({n}, boxes.scalar_type(), boxes);
  STD_CUDA_CHECK(cuda::soft_nms_decay(in, rule, max_output, workspace.mutable_data_ptr(), written<T>(result), stream));
  const ScalarType key_type = sizeof(T) == 4 ? ScalarType::Int : ScalarType::Long;
  const Tensor keys = cuda::empty_like_device({n}, key_type, boxes);
  NmsFilter filter;
  filter.by_score = true;
  if (n > 0) STD_CUDA_CHECK(cuda::nms_keys<T>(data<T>(result), 1, n, filter, written<cuda::NmsKey<T>>(keys), stream));
  const cuda::Sorted best = cuda::sort_rows(keys);
  STD_CUDA_CHECK(cuda::soft_nms_finish<T>(data<cuda::NmsKey<T>>(best.values), data<int64_t>(best.indices),
                                          data<T>(result), n, max_output, written<int64_t>(indices),
                                          written<T>(decayed), written<int64_t>(count), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs,
                                            double iou_threshold, int64_t method, double sigma, double score_threshold,
                                            int64_t max_output) {
  check_soft_nms(boxes, scores, idxs, iou_threshold, method, sigma, score_threshold, max_output);
  const DeviceGuard guard(boxes.get_device_index());
  const ScalarType type = nms_type(boxes, scores);
  const Tensor indices = cuda::empty_like_device({max_output}, ScalarType::Long, boxes);
  const Tensor decayed = cuda::empty_like_device({max_output}, type, boxes);
  const Tensor count = cuda::empty_like_device({}, ScalarType::Long, boxes);
  const Tensor b = cuda::dense(boxes, type), s = cuda::dense(scores, type);
  if (type == ScalarType::Double)
    run<double>(b, s, idxs, soft_nms_rule<double>(iou_threshold, method, sigma, score_threshold), max_output, indices,
                decayed, count);
  else
    run<float>(b, s, idxs, soft_nms_rule<float>(iou_threshold, method, sigma, score_threshold), max_output, indices,
               decayed, count);
  return {indices, decayed, count};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms)); }

}  // namespace structops
