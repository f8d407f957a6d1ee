// nms_padded for torch: schema and the CPU binding (checks, allocation, then the kernel, which is that of nms).
#include <limits>
#include <tuple>

#include "nms/nms.h"
#include "nms_padded/checks.h"

namespace structops {
namespace {

std::tuple<Tensor, Tensor> nms_padded(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs,
                                      const OptionalTensor& valid, double iou_threshold, int64_t max_output,
                                      std::optional<double> score_threshold) {
  check_nms_padded(boxes, scores, idxs, valid, iou_threshold, max_output);
  const int64_t images = boxes.size(0), n = boxes.size(1);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "nms_padded: at most 2^32 - 1 boxes an image, got ", n);
  Tensor indices = empty({images, max_output}, ScalarType::Long, boxes);
  Tensor counts = empty({images}, ScalarType::Long, boxes);
  const ScalarType type = wide_type(boxes, scores);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const OptionalTensor c = dense(idxs, ScalarType::Long), v = dense_valid(valid);
  const auto run = [&]<class T>(T) {
    const cpu::NmsBatch<T> batch{images, n, data<T>(b), data<T>(s), data<int64_t>(c), nms_filter(v, score_threshold)};
    cpu::nms_padded(batch, iou_threshold, max_output, mutable_data<int64_t>(indices), mutable_data<int64_t>(counts),
                    parallel_for);
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return {indices, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor? idxs, Tensor? valid, float iou_threshold, SymInt max_output, "
      "float? score_threshold) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("nms_padded", TORCH_BOX(&nms_padded)); }

}  // namespace structops
