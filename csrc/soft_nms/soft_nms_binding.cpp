// soft_nms for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <limits>
#include <tuple>

#include "soft_nms/checks.h"
#include "soft_nms/soft_nms.h"

namespace structops {
namespace {

std::tuple<Tensor, Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, const OptionalTensor& idxs,
                                            double iou_threshold, int64_t method, double sigma, double score_threshold,
                                            int64_t max_output) {
  check_soft_nms(boxes, scores, idxs, iou_threshold, method, sigma, score_threshold, max_output);
  const int64_t n = boxes.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "soft_nms: at most 2^32 - 1 boxes, got ", n);
  const ScalarType type = wide_type(boxes, scores);
  Tensor indices = empty({max_output}, ScalarType::Long, boxes);
  Tensor decayed = empty({max_output}, type, boxes);
  Tensor count = empty({}, ScalarType::Long, boxes);
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  const OptionalTensor c = dense(idxs, ScalarType::Long);
  const auto run = [&]<class T>(T) {
    const SoftNmsRule<T> rule = soft_nms_rule<T>(iou_threshold, method, sigma, score_threshold);
    *mutable_data<int64_t>(count) =
        cpu::soft_nms(data<T>(b), data<T>(s), data<int64_t>(c), n, rule, max_output, mutable_data<int64_t>(indices),
                      mutable_data<T>(decayed), parallel_for);
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return {indices, decayed, count};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "soft_nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold, int method, float sigma, "
      "float score_threshold, SymInt max_output) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms)); }

}  // namespace structops
