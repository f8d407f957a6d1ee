// box_iou_rotated for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include "box_iou_rotated/box_iou_rotated.h"
#include "box_iou_rotated/box_iou_rotated_checks.h"
#include "common/cpu/memory.h"

namespace structops {
namespace {

template <class Out>
void fill(const Tensor& boxes1, const Tensor& boxes2, bool elementwise, Tensor& out) {
  Out* result = mutable_data<Out>(out);
  const int64_t n = boxes1.size(0), m = boxes2.size(0);
  if (elementwise)
    return cpu::box_iou_rotated_elementwise(data<double>(boxes1), data<double>(boxes2), n, result, parallel_for);
  const cpu::RotatedBoxes a(data<double>(boxes1), n, nullptr, parallel_for),
      b(data<double>(boxes2), m, nullptr, parallel_for);
  cpu::advise_huge_pages(result, out.numel() * static_cast<int64_t>(sizeof(Out)));
  cpu::box_iou_rotated(a, b, result, parallel_for);
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2, bool elementwise) {
  check_box_iou_rotated(boxes1, boxes2, elementwise);
  const int64_t m = boxes2.size(0);
  STRUCTOPS_CHECK(m < int64_t(1) << 32, "box_iou_rotated: boxes2 must be fewer than 2^32, got ", m);
  Tensor out = empty_iou(boxes1, boxes2, elementwise);
  if (out.numel() == 0) return out;
  const Tensor a = dense(boxes1, ScalarType::Double), b = dense(boxes2, ScalarType::Double);
  if (out.scalar_type() == ScalarType::Double)
    fill<double>(a, b, elementwise, out);
  else
    fill<float>(a, b, elementwise, out);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("box_iou_rotated(Tensor boxes1, Tensor boxes2, bool elementwise) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("box_iou_rotated", TORCH_BOX(&box_iou_rotated)); }

}  // namespace structops
