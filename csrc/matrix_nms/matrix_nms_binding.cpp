// matrix_nms for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <limits>

#include "matrix_nms/checks.h"
#include "matrix_nms/matrix_nms.h"

namespace structops {
namespace {

OptionalTensor dense(const OptionalTensor& t, ScalarType type) {
  if (!t) return t;
  return torch::stable::contiguous(t->scalar_type() == type ? *t : torch::stable::to(*t, type));
}

template <class T>
const T* data(const OptionalTensor& t) {
  return t ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}

Tensor matrix_nms(const Tensor& scores, const OptionalTensor& boxes, const OptionalTensor& ious,
                  const OptionalTensor& idxs, int64_t kernel, double sigma) {
  check_matrix_nms(scores, boxes, ious, idxs, kernel, sigma);
  const int64_t n = scores.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "matrix_nms: at most 2^32 - 1 boxes, got ", n);
  const ScalarType type = nms_type(boxes ? *boxes : *ious, scores);
  Tensor lowered = torch::stable::empty({n}, type, std::nullopt, scores.device());
  const OptionalTensor s = dense(scores, type), b = dense(boxes, type), o = dense(ious, type);
  const OptionalTensor c = dense(idxs, ScalarType::Long);
  const auto run = [&]<class T>(T) {
    const cpu::MatrixNmsInput<T> in{n, data<T>(s), data<T>(b), data<T>(o), data<int64_t>(c)};
    cpu::matrix_nms(in, matrix_nms_rule<T>(kernel, sigma), static_cast<T*>(lowered.mutable_data_ptr()), parallel_for);
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
