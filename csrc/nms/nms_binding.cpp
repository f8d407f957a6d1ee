// nms and batched_nms for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include <algorithm>

#include "nms/nms.h"
#include "nms/nms_checks.h"

namespace structops {
namespace {

Tensor keep(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  // Half boxes are compared in float32, which holds them exactly; double stays double.
  const ScalarType type = boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const auto dense = [](const Tensor& t, ScalarType to) { return torch::stable::contiguous(torch::stable::to(t, to)); };
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const Tensor classes = idxs == nullptr ? s : dense(*idxs, ScalarType::Long);
  const auto* c = idxs == nullptr ? nullptr : static_cast<const int64_t*>(classes.const_data_ptr());
  const int64_t n = b.size(0);
  const auto run = [&]<class T>(T) {
    return cpu::nms(static_cast<const T*>(b.const_data_ptr()), static_cast<const T*>(s.const_data_ptr()), c, n, iou_threshold);
  };
  const std::vector<int64_t> kept = type == ScalarType::Double ? run(double()) : run(float());
  Tensor out = torch::stable::empty({static_cast<int64_t>(kept.size())}, ScalarType::Long, std::nullopt, boxes.device());
  std::copy(kept.begin(), kept.end(), static_cast<int64_t*>(out.mutable_data_ptr()));
  return out;
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
