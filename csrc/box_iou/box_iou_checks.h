// What the CPU and the CUDA binding of box_iou share: checks, parameters, and operands.
#pragma once
#include <utility>

#include "box_iou/box_iou.h"
#include "common/aten.h"

namespace structops {

inline BoxIouParams check_box_iou(const char* op, const Tensor& boxes1, const Tensor& boxes2, int64_t kind,
                                  int64_t format, bool elementwise, double eps) {
  const int64_t rank = elementwise ? 2 : 3;
  const char* shape = elementwise ? "[N, 4]" : "[B, N, 4]";
  for (const auto& [name, t] : {std::pair<const char*, const Tensor&>{"boxes1", boxes1}, {"boxes2", boxes2}}) {
    STRUCTOPS_CHECK(t.dim() == rank && t.size(rank - 1) == 4, op, ": ", name, " must be ", shape, ", got ", t.dim(),
                    " dimensions", t.dim() == rank ? " with a wrong last size" : "");
    check_floating(op, name, t);
  }
  STRUCTOPS_CHECK(boxes1.device() == boxes2.device(), op, ": boxes2 must be on the same device as boxes1");
  STRUCTOPS_CHECK(boxes1.size(0) == boxes2.size(0), op, ": boxes1 and boxes2 must have the same ",
                  elementwise ? "number of boxes" : "batch size", ", got ", boxes1.size(0), " and ", boxes2.size(0));
  STRUCTOPS_CHECK(0 <= kind && kind < 4, op, ": kind must be 0 to 3, got ", kind);
  STRUCTOPS_CHECK(0 <= format && format < 3, op, ": fmt must be 0 to 2, got ", format);
  if (elementwise) return {1, boxes1.size(0), 1, BoxIouKind(kind), BoxFormat(format), eps};
  return {boxes1.size(0), boxes1.size(1), boxes2.size(1), BoxIouKind(kind), BoxFormat(format), eps};
}

inline void check_box_iou_grad(const char* op, const Tensor& grad, const Tensor& boxes1, const BoxIouParams& p,
                               ScalarType type, bool elementwise) {
  const bool same =
      elementwise ? grad.dim() == 1 && grad.size(0) == p.rows
                  : grad.dim() == 3 && grad.size(0) == p.batch && grad.size(1) == p.rows && grad.size(2) == p.columns;
  STRUCTOPS_CHECK(same, op, ": grad must have the shape of the result, a value a pair");
  STRUCTOPS_CHECK(grad.scalar_type() == type, op, ": grad must be of the result's type, got ",
                  torch::headeronly::toString(grad.scalar_type()));
  STRUCTOPS_CHECK(grad.device() == boxes1.device(), op, ": grad must be on the same device as boxes1");
}

inline Tensor empty_iou(const BoxIouParams& p, const Tensor& like, ScalarType type, bool elementwise) {
  return elementwise ? empty({p.rows}, type, like) : empty({p.batch, p.rows, p.columns}, type, like);
}

// Both sets, dense and of one type, with the angles that the complete form wants. ratios: a device's box_ratios.
template <class T>
class BoxTensors {
 public:
  template <class Ratios>
  BoxTensors(const BoxIouParams& p, const Tensor& b1, const Tensor& b2, ScalarType type, const Ratios& ratios)
      : boxes1(dense(b1, type)), boxes2(dense(b2, type)) {
    if (p.kind != BoxIouKind::complete) return;
    angles1_ = angles(boxes1, type, ratios);
    angles2_ = angles(boxes2, type, ratios);
  }
  BoxSets<T> pointers() const { return {data<T>(boxes1), data<T>(boxes2), data<T>(angles1_), data<T>(angles2_)}; }

  const Tensor boxes1, boxes2;

 private:
  // The arc tangent is torch's own: no other rounds alike in the last bit.
  template <class Ratios>
  static Tensor angles(const Tensor& boxes, ScalarType type, const Ratios& ratios) {
    const Tensor t = empty({boxes.numel() / 4}, type, boxes);
    ratios(data<T>(boxes), t.numel(), mutable_data<T>(t));
    return call_aten("aten::atan", "", t);
  }

  OptionalTensor angles1_, angles2_;
};

}  // namespace structops
