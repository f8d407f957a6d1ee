// match_boxes for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <tuple>

#include "match_boxes/match_boxes_checks.h"

namespace structops {
namespace {

std::tuple<Tensor, Tensor> match_boxes(const Tensor& gt, const Tensor& anchors, double high_threshold,
                                       double low_threshold, bool allow_low_quality_matches,
                                       const OptionalTensor& valid) {
  check_match_boxes(gt, anchors, high_threshold, low_threshold, valid);
  MatchTensors t(gt, anchors, high_threshold, low_threshold, allow_low_quality_matches, valid);
  const auto run = [&]<class T>(T) {
    cpu::match_boxes(t.params, data<T>(t.gt), data<T>(t.anchors), data<int64_t>(t.valid),
                     mutable_data<int64_t>(t.matches), mutable_data<T>(t.ious), parallel_for);
  };
  t.type == ScalarType::Double ? run(double()) : run(float());
  return {t.matches, t.ious};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "match_boxes(Tensor gt, Tensor anchors, float high_threshold, float low_threshold, "
      "bool allow_low_quality_matches, Tensor? valid) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("match_boxes", TORCH_BOX(&match_boxes)); }

}  // namespace structops
