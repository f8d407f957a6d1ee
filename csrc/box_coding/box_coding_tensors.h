// What the CPU and the CUDA binding of box coding share: checks, operands, and torch's exp and log.
#pragma once
#include <vector>

#include "box_coding/box_coding.h"
#include "common/aten.h"

namespace structops {

struct CodingOptions {
  bool decode;
  int64_t coding;
  const std::vector<double>& weights;
  double clip, stride;
};

// codes or boxes [R, C, 4], anchors [A, 4] with R a multiple of A.
inline CodingParams check_coding(const char* op, const char* name, const Tensor& in, const Tensor& anchors,
                                 const CodingOptions& o) {
  STRUCTOPS_CHECK(in.dim() == 3 && in.size(2) == 4, op, ": ", name, " must be [R, C, 4], got ", shape_text(in));
  STRUCTOPS_CHECK(anchors.dim() == 2 && anchors.size(1) == 4, op, ": anchors must be [A, 4], got ",
                  shape_text(anchors));
  check_floating(op, name, in);
  check_floating(op, "anchors", anchors);
  STRUCTOPS_CHECK(in.device() == anchors.device(), op, ": anchors must be on the same device as ", name);
  const int64_t rows = in.size(0), count = anchors.size(0);
  STRUCTOPS_CHECK(count > 0 ? rows % count == 0 : rows == 0, op, ": the rows of ", name,
                  " must be a multiple of the anchors, got ", rows, " and ", count);
  STRUCTOPS_CHECK(0 <= o.coding && o.coding < 4, op, ": coding must be 0 to 3, got ", o.coding);
  STRUCTOPS_CHECK(o.weights.size() == 4, op, ": weights must be four numbers, got ", o.weights.size());
  CodingParams p{count > 0 ? rows / count : 0, count, in.size(1), Coding(o.coding), {}, o.clip, o.stride};
  for (int i = 0; i < 4; ++i) p.weights[i] = o.weights[i];
  return p;
}

inline void check_coding_grad(const char* op, const Tensor& grad, const Tensor& in, ScalarType type) {
  bool same = grad.dim() == 3;
  for (int64_t i = 0; same && i < 3; ++i) same = grad.size(i) == in.size(i);
  STRUCTOPS_CHECK(same, op, ": grad must be [", in.size(0), ", ", in.size(1), ", 4]");
  STRUCTOPS_CHECK(grad.scalar_type() == type, op, ": grad must be of the result's type, got ",
                  torch::headeronly::toString(grad.scalar_type()));
  STRUCTOPS_CHECK(grad.device() == in.device(), op, ": grad must be on the same device as what is coded");
}

// Dense operands of one type, and the exponentials or logarithms for them.
template <class T>
class CodingTensors {
 public:
  // arguments: a device's coding_arguments.
  template <class Arguments>
  CodingTensors(const CodingParams& p, bool decode, const Tensor& in, const Tensor& anchors, ScalarType type,
                const Arguments& arguments)
      : in(dense(in, type)), anchors(dense(anchors, type)) {
    if (!has_sizes(p.coding) || this->in.numel() == 0) return;
    has_offsets_ = has_offsets(p.coding);
    values_ = empty({1 + has_offsets_, this->in.numel() / 2}, type, in);
    arguments(p, decode, data<T>(this->in), data<T>(this->anchors), curves());
    // torch's own: no other rounds alike in the last bit.
    values_ = call_aten(decode ? "aten::exp" : "aten::log", "", *values_);
  }
  Curves<T> curves() {
    if (!values_) return {nullptr, nullptr};
    T* sizes = mutable_data<T>(*values_);
    return {has_offsets_ ? sizes + in.numel() / 2 : nullptr, sizes};
  }

  const Tensor in, anchors;

 private:
  bool has_offsets_ = false;
  OptionalTensor values_;  // [1 or 2, R * C * 2]: the sizes, then the offsets
};

}  // namespace structops
