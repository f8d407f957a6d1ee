// box_iou for torch: schemas and the CPU binding (checks, allocation, then the kernel).
#include <tuple>

#include "box_iou/box_iou.h"
#include "box_iou/box_iou_checks.h"
#include "common/cpu/memory.h"

namespace structops {
namespace {

Tensor box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t kind, int64_t fmt, bool elementwise, double eps) {
  const BoxIouParams p = check_box_iou("box_iou", boxes1, boxes2, kind, fmt, elementwise, eps);
  const ScalarType type = wide_type(boxes1, boxes2);
  Tensor output = empty_iou(p, boxes1, type, elementwise);
  if (output.numel() == 0) return output;
  cpu::advise_huge_pages(output.mutable_data_ptr(), output.numel() * output.element_size());
  const auto run = [&]<class T>(T) {
    const BoxTensors<T> sets(p, boxes1, boxes2, type, cpu::box_ratios<T>);
    (elementwise ? cpu::box_iou_rows<T> : cpu::box_iou<T>)(p, sets.pointers(), mutable_data<T>(output), parallel_for);
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return output;
}

std::tuple<Tensor, Tensor> box_iou_backward(const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2,
                                            int64_t kind, int64_t fmt, bool elementwise, double eps) {
  const BoxIouParams p = check_box_iou("box_iou_backward", boxes1, boxes2, kind, fmt, elementwise, eps);
  const ScalarType type = wide_type(boxes1, boxes2);
  check_box_iou_grad("box_iou_backward", grad, boxes1, p, type, elementwise);
  const Tensor incoming = dense(grad, type);
  const auto run = [&]<class T>(T) -> std::tuple<Tensor, Tensor> {
    const BoxTensors<T> sets(p, boxes1, boxes2, type, cpu::box_ratios<T>);
    Tensor grad1 = torch::stable::empty_like(sets.boxes1), grad2 = torch::stable::empty_like(sets.boxes2);
    if (grad1.numel() + grad2.numel() > 0)
      (elementwise ? cpu::box_iou_rows_backward<T> : cpu::box_iou_backward<T>)(p, data<T>(incoming), sets.pointers(),
                                                                               mutable_data<T>(grad1),
                                                                               mutable_data<T>(grad2), parallel_for);
    return {dense(grad1, boxes1.scalar_type()), dense(grad2, boxes2.scalar_type())};
  };
  return type == ScalarType::Double ? run(double()) : run(float());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("box_iou(Tensor boxes1, Tensor boxes2, int kind, int fmt, bool elementwise, float eps) -> Tensor");
  m.def(
      "box_iou_backward(Tensor grad, Tensor boxes1, Tensor boxes2, int kind, int fmt, bool elementwise, float eps) -> "
      "(Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("box_iou", TORCH_BOX(&box_iou));
  m.impl("box_iou_backward", TORCH_BOX(&box_iou_backward));
}

}  // namespace structops
