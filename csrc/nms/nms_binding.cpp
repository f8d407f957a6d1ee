// nms and batched_nms for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include <algorithm>
#include <limits>

#include "nms/nms.h"
#include "nms/nms_checks.h"

namespace structops {
namespace {

// Each conversion is a call through the dispatcher, microseconds that matter for ten boxes.
Tensor dense(const Tensor& t, ScalarType type) {
  const Tensor converted = t.scalar_type() == type ? t : torch::stable::to(t, type);
  return converted.is_contiguous() ? converted : torch::stable::contiguous(converted);
}

Tensor keep(const Tensor& boxes, const Tensor& scores, const Tensor* idxs, double iou_threshold) {
  const int64_t n = boxes.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "nms: at most 2^32 - 1 boxes, got ", n);
  const ScalarType type = nms_type(boxes, scores);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const Tensor c = idxs == nullptr ? s : dense(*idxs, ScalarType::Long);
  const int64_t* classes = idxs == nullptr ? nullptr : static_cast<const int64_t*>(c.const_data_ptr());
  const auto run = [&]<class T>(T) {
    return cpu::nms(static_cast<const T*>(b.const_data_ptr()), static_cast<const T*>(s.const_data_ptr()), classes, n,
                    iou_threshold, parallel_for);
  };
  const std::vector<int64_t> kept = type == ScalarType::Double ? run(double()) : run(float());
  const int64_t count = kept.size();
  Tensor out = torch::stable::empty({count}, ScalarType::Long, std::nullopt, boxes.device());
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
