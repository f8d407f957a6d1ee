// soft_nms for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <limits>
#include <tuple>

#include "soft_nms/checks.h"
#include "soft_nms/soft_nms.h"

namespace structops {
namespace {

Tensor dense(const Tensor& t, ScalarType type) {
  return torch::stable::contiguous(t.scalar_type() == type ? t : torch::stable::to(t, type));
}

template <class T>
T* data(Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

std::tuple<Tensor, Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, std::optional<Tensor> idxs,
                                            double iou_threshold, int64_t method, double sigma, double score_threshold,
                                            int64_t max_output) {
  check_soft_nms(boxes, scores, idxs, iou_threshold, method, sigma, score_threshold, max_output);
  const int64_t n = boxes.size(0);
  STRUCTOPS_CHECK(n <= std::numeric_limits<uint32_t>::max(), "soft_nms: at most 2^32 - 1 boxes, got ", n);
  const ScalarType type = nms_type(boxes, scores);
  Tensor indices = torch::stable::empty({max_output}, ScalarType::Long, std::nullopt, boxes.device());
  Tensor decayed = torch::stable::empty({max_output}, type, std::nullopt, boxes.device());
  Tensor count = torch::stable::empty({}, ScalarType::Long, std::nullopt, boxes.device());
  const Tensor b = dense(boxes, type), s = dense(scores, type);
  if (idxs) idxs = dense(*idxs, ScalarType::Long);
  const int64_t* classes = idxs ? static_cast<const int64_t*>(idxs->const_data_ptr()) : nullptr;
  const auto run = [&]<class T>(T) {
    const SoftNmsRule<T> rule = soft_nms_rule<T>(iou_threshold, method, sigma, score_threshold);
    *data<int64_t>(count) =
        cpu::soft_nms(static_cast<const T*>(b.const_data_ptr()), static_cast<const T*>(s.const_data_ptr()), classes, n,
                      rule, max_output, data<int64_t>(indices), data<T>(decayed), parallel_for);
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
