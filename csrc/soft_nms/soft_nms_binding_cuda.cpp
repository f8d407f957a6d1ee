// soft_nms for torch on CUDA: checks, allocation, torch's stable sorts and the kernels. Nothing here waits for the GPU.
#include <tuple>

#include "nms/nms_binding_cuda.h"
#include "soft_nms/checks.h"
#include "soft_nms/soft_nms_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

template <class T>
void run(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs, const SoftNmsRule<T>& rule,
         int64_t max_output, const Tensor& indices, const Tensor& decayed, const Tensor& count) {
  const int64_t n = boxes.size(0);
  const cudaStream_t stream = cuda::current_stream(boxes);
  cuda::SoftNmsInput<T> in{n, data<T>(boxes), data<T>(scores), nullptr, nullptr};
  std::optional<cuda::Sorted> by_class;
  if (idxs) {
    by_class = cuda::sort_rows(dense(*idxs, ScalarType::Long));
    in.order = data<int64_t>(by_class->indices);
    in.classes = data<int64_t>(by_class->values);
  }
  const Tensor workspace = empty({static_cast<int64_t>(cuda::soft_nms_workspace<T>(n))}, ScalarType::Byte, boxes);
  const Tensor result = empty({n}, boxes.scalar_type(), boxes);
  STD_CUDA_CHECK(
      cuda::soft_nms_decay(in, rule, max_output, workspace.mutable_data_ptr(), mutable_data<T>(result), stream));
  NmsFilter filter;
  filter.by_score = true;
  const cuda::Sorted best = cuda::sort_by_class<T>(result, std::nullopt, 1, n, filter).by_score;
  STD_CUDA_CHECK(cuda::soft_nms_finish<T>(data<cuda::NmsKey<T>>(best.values), data<int64_t>(best.indices),
                                          data<T>(result), n, max_output, mutable_data<int64_t>(indices),
                                          mutable_data<T>(decayed), mutable_data<int64_t>(count), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs,
                                            double iou_threshold, int64_t method, double sigma, double score_threshold,
                                            int64_t max_output) {
  check_soft_nms(boxes, scores, idxs, iou_threshold, method, sigma, score_threshold, max_output);
  const DeviceGuard guard(boxes.get_device_index());
  const ScalarType type = wide_type(boxes, scores);
  const Tensor indices = empty({max_output}, ScalarType::Long, boxes);
  const Tensor decayed = empty({max_output}, type, boxes);
  const Tensor count = empty({}, ScalarType::Long, boxes);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
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
