// What the CPU and the CUDA binding of box_iou share: checks, parameters, and the types that boxes are compared in.
#pragma once
#include <array>
#include <optional>

#include "box_iou/box_iou.h"
#include "common/tensor.h"

namespace structops {

inline BoxIouParams check_box_iou(const char* op, const Tensor& boxes1, const Tensor& boxes2, int64_t kind,
                                  int64_t format, bool elementwise, double eps) {
  const int64_t rank = elementwise ? 2 : 3;
  const char* shape = elementwise ? "[N, 4]" : "[B, N, 4]";
  for (const auto& [name, t] : {std::pair<const char*, const Tensor&>{"boxes1", boxes1}, {"boxes2", boxes2}}) {
    STRUCTOPS_CHECK(t.dim() == rank && t.size(rank - 1) == 4, op, ": ", name, " must be ", shape, ", got ", t.dim(),
                    " dimensions", t.dim() == rank ? " with a wrong last size" : "");
    STRUCTOPS_CHECK(is_floating(t.scalar_type()), op, ": ", name,
                    " must be float16, bfloat16, float32 or float64, got ",
                    torch::headeronly::toString(t.scalar_type()));
  }
  STRUCTOPS_CHECK(boxes1.device() == boxes2.device(), op, ": boxes2 must be on the same device as boxes1");
  STRUCTOPS_CHECK(boxes1.size(0) == boxes2.size(0), op, ": boxes1 and boxes2 must have the same ",
                  elementwise ? "number of boxes" : "batch size", ", got ", boxes1.size(0), " and ", boxes2.size(0));
  STRUCTOPS_CHECK(0 <= kind && kind < 4, op, ": kind must be 0 to 3, got ", kind);
  STRUCTOPS_CHECK(0 <= format && format < 3, op, ": fmt must be 0 to 2, got ", format);
  if (elementwise) return {1, boxes1.size(0), 1, BoxIouKind(kind), BoxFormat(format), eps};
  return {boxes1.size(0), boxes1.size(1), boxes2.size(1), BoxIouKind(kind), BoxFormat(format), eps};
}

// Halves are compared in float32, which holds them exactly.
inline ScalarType box_iou_type(const Tensor& boxes1, const Tensor& boxes2) {
  const bool any_double = boxes1.scalar_type() == ScalarType::Double || boxes2.scalar_type() == ScalarType::Double;
  return any_double ? ScalarType::Double : ScalarType::Float;
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

inline Tensor dense(const Tensor& t, ScalarType type) {
  const Tensor converted = t.scalar_type() == type ? t : torch::stable::to(t, type);
  return converted.is_contiguous() ? converted : torch::stable::contiguous(converted);
}

inline Tensor empty_iou(const BoxIouParams& p, const Tensor& like, ScalarType type, bool elementwise) {
  if (elementwise) return torch::stable::empty({p.rows}, type, std::nullopt, like.device());
  return torch::stable::empty({p.batch, p.rows, p.columns}, type, std::nullopt, like.device());
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* data(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
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
  BoxSets<T> pointers() const {
    const auto pointer = [](const std::optional<Tensor>& t) { return t ? data<T>(*t) : nullptr; };
    return {data<T>(boxes1), data<T>(boxes2), pointer(angles1_), pointer(angles2_)};
  }

  const Tensor boxes1, boxes2;

 private:
  // The arc tangent is torch's own: no other rounds alike in the last bit.
  template <class Ratios>
  static Tensor angles(const Tensor& boxes, ScalarType type, const Ratios& ratios) {
    Tensor t = torch::stable::empty({boxes.numel() / 4}, type, std::nullopt, boxes.device());
    ratios(data<T>(boxes), t.numel(), data<T>(t));
    std::array<StableIValue, 1> stack{torch::stable::detail::from(t)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::atan", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
  }

  std::optional<Tensor> angles1_, angles2_;
};

}  // namespace structops
