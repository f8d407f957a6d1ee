// nms_rotated and batched_nms_rotated for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include <limits>

#include "nms_rotated/nms_rotated.h"
#include "nms_rotated/nms_rotated_checks.h"

namespace structops {
namespace {

Tensor keep(const char* op, const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  check_nms_rotated(op, boxes, scores, idxs, iou_threshold);
  const int64_t n = boxes.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), op, ": at most 2^32 - 1 boxes, got ", n);
  const Tensor b = dense(boxes, ScalarType::Double), s = dense(scores, wide_type(scores));
  const Tensor c = idxs == nullptr ? s : dense(*idxs, ScalarType::Long);
  const cpu::NmsRotatedInput in{n, data<double>(b), wide_type(boxes) == ScalarType::Float,
                                idxs == nullptr ? nullptr : data<int64_t>(c), iou_threshold};
  return as_tensor(s.scalar_type() == ScalarType::Double ? cpu::nms_rotated(in, data<double>(s), parallel_for)
                                                         : cpu::nms_rotated(in, data<float>(s), parallel_for),
                   boxes);
}

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return keep("nms_rotated", boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms_rotated(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return keep("batched_nms_rotated", boxes, scores, &idxs, iou_threshold);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
  m.def("batched_nms_rotated(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("nms_rotated", TORCH_BOX(&nms_rotated));
  m.impl("batched_nms_rotated", TORCH_BOX(&batched_nms_rotated));
}

}  // namespace structops
