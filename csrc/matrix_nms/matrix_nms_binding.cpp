// matrix_nms for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <limits>

#include "matrix_nms/checks.h"
#include "matrix_nms/matrix_nms.h"

namespace structops {
namespace {

Tensor matrix_nms(const Tensor& scores, const OptionalTensor& boxes, const OptionalTensor& ious,
                  const OptionalTensor& idxs, int64_t kernel, double sigma) {
  check_matrix_nms(scores, boxes, ious, idxs, kernel, sigma);
  const int64_t n = scores.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "matrix_nms: at most 2^32 - 1 boxes, got ", n);
  const ScalarType type = wide_type(boxes ? *boxes : *ious, scores);
  Tensor lowered = empty({n}, type, scores);
  const Tensor s = dense(scores, type);
  const OptionalTensor b = dense(boxes, type), o = dense(ious, type), c = dense(idxs, ScalarType::Long);
  const auto run = [&]<class T>(T) {
    const cpu::MatrixNmsInput<T> in{n, data<T>(s), data<T>(b), data<T>(o), data<int64_t>(c)};
    cpu::matrix_nms(in, matrix_nms_rule<T>(kernel, sigma), mutable_data<T>(lowered), parallel_for);
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return lowered;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("matrix_nms(Tensor scores, Tensor? boxes, Tensor? ious, Tensor? idxs, int kernel, float sigma) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("matrix_nms", TORCH_BOX(&matrix_nms)); }

}  // namespace structops
