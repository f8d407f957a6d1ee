// decode_boxes and encode_boxes for torch: schemas and the CPU binding (checks, allocation, then the kernels).
#include <tuple>

#include "box_coding/box_coding.h"
#include "box_coding/box_coding_tensors.h"
#include "common/cpu/memory.h"

namespace structops {
namespace {

using Weights = std::vector<double>;

template <class T>
auto arguments() {
  return [](const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& to) {
    cpu::coding_arguments(p, decode, in, anchors, to, parallel_for);
  };
}

Tensor code(const char* op, const char* name, const Tensor& in, const Tensor& anchors, const CodingOptions& o) {
  const CodingParams p = check_coding(op, name, in, anchors, o);
  const ScalarType type = wide_type(in, anchors);
  Tensor out = empty({in.size(0), in.size(1), 4}, type, in);
  if (out.numel() == 0) return out;
  cpu::advise_huge_pages(out.mutable_data_ptr(), out.numel() * out.element_size());
  const auto run = [&]<class T>(T) {
    CodingTensors<T> t(p, o.decode, in, anchors, type, arguments<T>());
    cpu::code_boxes(p, o.decode, data<T>(t.in), data<T>(t.anchors), t.curves(), mutable_data<T>(out), parallel_for);
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return out;
}

std::tuple<Tensor, Tensor> code_backward(const char* op, const char* name, const Tensor& grad, const Tensor& in,
                                         const Tensor& anchors, const CodingOptions& o) {
  const CodingParams p = check_coding(op, name, in, anchors, o);
  const ScalarType type = wide_type(in, anchors);
  check_coding_grad(op, grad, in, type);
  const Tensor incoming = dense(grad, type);
  const auto run = [&]<class T>(T) -> std::tuple<Tensor, Tensor> {
    CodingTensors<T> t(p, o.decode, in, anchors, type, arguments<T>());
    Tensor grad_in = torch::stable::empty_like(t.in), grad_anchors = torch::stable::empty_like(t.anchors);
    cpu::code_boxes_backward(p, o.decode, data<T>(incoming), data<T>(t.in), data<T>(t.anchors), t.curves(),
                             mutable_data<T>(grad_in), mutable_data<T>(grad_anchors), parallel_for);
    return {dense(grad_in, in.scalar_type()), dense(grad_anchors, anchors.scalar_type())};
  };
  return type == ScalarType::Double ? run(double()) : run(float());
}

Tensor decode_boxes(const Tensor& deltas, const Tensor& anchors, int64_t coding, Weights weights, double clip,
                    double stride) {
  return code("decode_boxes", "deltas", deltas, anchors, {true, coding, weights, clip, stride});
}
std::tuple<Tensor, Tensor> decode_boxes_backward(const Tensor& grad, const Tensor& deltas, const Tensor& anchors,
                                                 int64_t coding, Weights weights, double clip, double stride) {
  return code_backward("decode_boxes_backward", "deltas", grad, deltas, anchors, {true, coding, weights, clip, stride});
}
Tensor encode_boxes(const Tensor& boxes, const Tensor& anchors, int64_t coding, Weights weights, double stride) {
  return code("encode_boxes", "boxes", boxes, anchors, {false, coding, weights, 0, stride});
}
std::tuple<Tensor, Tensor> encode_boxes_backward(const Tensor& grad, const Tensor& boxes, const Tensor& anchors,
                                                 int64_t coding, Weights weights, double stride) {
  return code_backward("encode_boxes_backward", "boxes", grad, boxes, anchors, {false, coding, weights, 0, stride});
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("decode_boxes(Tensor deltas, Tensor anchors, int coding, float[] weights, float clip, float stride) -> Tensor");
  m.def(
      "decode_boxes_backward(Tensor grad, Tensor deltas, Tensor anchors, int coding, float[] weights, float clip, "
      "float stride) -> (Tensor, Tensor)");
  m.def("encode_boxes(Tensor boxes, Tensor anchors, int coding, float[] weights, float stride) -> Tensor");
  m.def(
      "encode_boxes_backward(Tensor grad, Tensor boxes, Tensor anchors, int coding, float[] weights, float stride) -> "
      "(Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("decode_boxes", TORCH_BOX(&decode_boxes));
  m.impl("decode_boxes_backward", TORCH_BOX(&decode_boxes_backward));
  m.impl("encode_boxes", TORCH_BOX(&encode_boxes));
  m.impl("encode_boxes_backward", TORCH_BOX(&encode_boxes_backward));
}

}  // namespace structops
