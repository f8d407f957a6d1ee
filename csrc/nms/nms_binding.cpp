// nms and batched_nms for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include <limits>

#include "nms/nms.h"
#include "nms/nms_checks.h"

namespace structops {
namespace {

Tensor keep(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  const int64_t n = boxes.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "nms: at most 2^32 - 1 boxes, got ", n);
  const ScalarType type = wide_type(boxes, scores);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const Tensor c = idxs == nullptr ? s : dense(*idxs, ScalarType::Long);
  const int64_t* classes = idxs == nullptr ? nullptr : data<int64_t>(c);
  const auto run = [&]<class T>(T) {
    return cpu::nms(data<T>(b), data<T>(s), classes, n, iou_threshold, parallel_for);
  };
  return as_tensor(type == ScalarType::Double ? run(double()) : run(float()), boxes);
}

Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  check_nms("nms", boxes, scores, nullptr, iou_threshold);
  return keep(boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  check_nms("batched_nms", boxes, scores, &idxs, iou_threshold);
  return keep(boxes, scores, &idxs, iou_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
  m.def("batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms));
  m.impl("batched_nms", TORCH_BOX(&batched_nms));
}

}  // namespace structops
