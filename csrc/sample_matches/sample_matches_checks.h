// What both bindings of sample_matches check and allocate. In Python: structops/ops/sample_matches.py.
#pragma once
#include <limits>

#include "common/tensor.h"
#include "sample_matches/sample_matches.h"

namespace structops {

inline void check_sample_matches(const Tensor& matches, int64_t num_samples, double positive_fraction,
                                 const Tensor& seed) {
  constexpr const char* op = "sample_matches";
  STRUCTOPS_CHECK(matches.dim() == 1 || matches.dim() == 2, op, ": matches must be [N] or [B, N], got ", matches.dim(),
                  " dimensions");
  STRUCTOPS_CHECK(is_integer(matches.scalar_type()), op, ": matches must be an integer tensor, got ",
                  torch::headeronly::toString(matches.scalar_type()));
  STRUCTOPS_CHECK(matches.size(-1) <= std::numeric_limits<int32_t>::max(), op, ": at most 2^31 - 1 anchors an image");
  STRUCTOPS_CHECK(num_samples > 0 && num_samples <= kMaxSamples, op, ": num_samples must be 1 to ", kMaxSamples,
                  ", got ", num_samples);
  STRUCTOPS_CHECK(positive_fraction >= 0 && positive_fraction <= 1, op, ": positive_fraction must be 0 to 1, got ",
                  positive_fraction);
  STRUCTOPS_CHECK(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long, op,
                  ": seed must be one int64 number, got ", seed.numel(), " of ",
                  torch::headeronly::toString(seed.scalar_type()));
  STRUCTOPS_CHECK(seed.device() == matches.device(), op, ": seed must be on the same device as matches");
}

// Arguments as the kernels take them, and the outputs.
struct SampleTensors {
  SampleParams params;
  Tensor matches;                       // [B, N] or [N], int64
  Tensor positives, negatives, counts;  // [B, positives], [B, samples], [B, 2]; without B for matches [N]

  SampleTensors(const Tensor& given, int64_t num_samples, double positive_fraction)
      : params{given.dim() == 2 ? given.size(0) : 1, given.size(-1), num_samples,
               static_cast<int64_t>(num_samples * positive_fraction)},
        matches(dense(given, ScalarType::Long)),
        positives(output(given, params.positives)),
        negatives(output(given, num_samples)),
        counts(output(given, 2)) {}

 private:
  Tensor output(const Tensor& like, int64_t columns) const {
    const int64_t size[2] = {params.images, columns};
    const bool batched = like.dim() == 2;
    return empty({size + (batched ? 0 : 1), batched ? size_t{2} : size_t{1}}, ScalarType::Long, like);
  }
};

}  // namespace structops
