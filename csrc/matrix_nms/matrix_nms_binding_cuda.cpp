// matrix_nms for torch on CUDA: checks, allocation, torch's stable sorts and the kernels. Nothing here waits for the
// GPU.
#include "matrix_nms/checks.h"
#include "matrix_nms/matrix_nms_cuda.h"
#include "nms/nms_binding_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

template <class T>
void run(const Tensor& scores, const OptionalTensor& boxes, const OptionalTensor& ious, const OptionalTensor& idxs,
         const MatrixNmsRule<T>& rule, const Tensor& lowered) {
  const int64_t n = scores.size(0);
  const cudaStream_t stream = cuda::current_stream(scores);
  const auto [by_score, by_class] = cuda::sort_by_class<T>(scores, idxs, 1, n, NmsFilter{});
  const cuda::MatrixNmsInput<T> in{n,
                                   data<T>(scores),
                                   data<T>(boxes),
                                   data<T>(ious),
                                   data<int64_t>(by_score.indices),
                                   by_class ? data<int64_t>(by_class->indices) : nullptr,
                                   by_class ? data<int64_t>(by_class->values) : nullptr};
  const Tensor workspace = empty({static_cast<int64_t>(cuda::matrix_nms_workspace<T>(n))}, ScalarType::Byte, scores);
  STD_CUDA_CHECK(cuda::matrix_nms(in, rule, workspace.mutable_data_ptr(), mutable_data<T>(lowered), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor matrix_nms(const Tensor& scores, const OptionalTensor& boxes, const OptionalTensor& ious,
                  const OptionalTensor& idxs, int64_t kernel, double sigma) {
  check_matrix_nms(scores, boxes, ious, idxs, kernel, sigma);
  const DeviceGuard guard(scores.get_device_index());
  const ScalarType type = wide_type(boxes ? *boxes : *ious, scores);
  const Tensor lowered = empty({scores.size(0)}, type, scores);
  if (scores.size(0) == 0) return lowered;
  const Tensor s = dense(scores, type);
  const OptionalTensor b = dense(boxes, type), o = dense(ious, type), c = dense(idxs, ScalarType::Long);
  if (type == ScalarType::Double)
    run<double>(s, b, o, c, matrix_nms_rule<double>(kernel, sigma), lowered);
  else
    run<float>(s, b, o, c, matrix_nms_rule<float>(kernel, sigma), lowered);
  return lowered;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("matrix_nms", TORCH_BOX(&matrix_nms)); }

}  // namespace structops
