// sample_matches for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include <tuple>

#include "sample_matches/sample_matches_checks.h"

namespace structops {
namespace {

std::tuple<Tensor, Tensor, Tensor> sample_matches(const Tensor& matches, int64_t num_samples, double positive_fraction,
                                                  const Tensor& seed) {
  check_sample_matches(matches, num_samples, positive_fraction, seed);
  SampleTensors t(matches, num_samples, positive_fraction);
  cpu::sample_matches(t.params, data<int64_t>(t.matches), *data<int64_t>(seed), mutable_data<int64_t>(t.positives),
                      mutable_data<int64_t>(t.negatives), mutable_data<int64_t>(t.counts), parallel_for);
  return {t.positives, t.negatives, t.counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "sample_matches(Tensor matches, int num_samples, float positive_fraction, Tensor seed) "
      "-> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("sample_matches", TORCH_BOX(&sample_matches)); }

}  // namespace structops
