// sample_matches for torch on CUDA: checks, allocation, launches on the current stream. Nothing waits for the GPU, and
// the seed is read there: a captured graph draws anew when it changes.
#include <tuple>

#include "common/cuda/binding.h"
#include "common/cuda/top_k.h"
#include "sample_matches/sample_matches_checks.h"
#include "sample_matches/sample_matches_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;
static_assert(kMaxSamples <= cuda::kMaxTopK);
constexpr int64_t kMaxImages = 32767;  // two segments of top_k each

std::tuple<Tensor, Tensor, Tensor> sample_matches(const Tensor& matches, int64_t num_samples, double positive_fraction,
                                                  const Tensor& seed) {
  check_sample_matches(matches, num_samples, positive_fraction, seed);
  const DeviceGuard guard(matches.get_device_index());
  SampleTensors t(matches, num_samples, positive_fraction);
  const SampleParams& p = t.params;
  STRUCTOPS_CHECK(p.images <= kMaxImages, "sample_matches: at most ", kMaxImages, " images on a GPU, got ", p.images);
  if (p.images == 0) return {t.positives, t.negatives, t.counts};
  const cudaStream_t stream = cuda::current_stream(matches);
  const auto scratch = [&](int64_t size, ScalarType type) { return empty({size}, type, matches); };
  Tensor priorities = scratch(2 * p.images * p.anchors, ScalarType::Float);
  auto* priority = mutable_data<float>(priorities);
  STD_CUDA_CHECK(cuda::sample_priorities(p, data<int64_t>(t.matches), data<int64_t>(seed), priority, stream));
  // A map whose two classes are the positive and the negative anchors; those that are neither have priority 0.
  const cuda::TopK top{.maps = 1, .images = p.images, .classes = 2, .k = p.samples, .above = 0.0};
  const int64_t map[cuda::kScoreMapNumbers] = {1, 1, p.anchors, 0, 0, 1, 2 * p.anchors, p.anchors};
  Tensor workspace = scratch(static_cast<int64_t>(cuda::top_k_workspace<float>(top, map)), ScalarType::Byte);
  Tensor best = scratch(2 * p.images * p.samples, ScalarType::Int);
  auto* chosen = mutable_data<int32_t>(best);
  STD_CUDA_CHECK(cuda::top_k<float>(top, {.m0 = priority}, map, workspace.mutable_data_ptr(), chosen, stream));
  STD_CUDA_CHECK(cuda::sample_choose(p, chosen, mutable_data<int64_t>(t.positives), mutable_data<int64_t>(t.negatives),
                                     mutable_data<int64_t>(t.counts), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {t.positives, t.negatives, t.counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("sample_matches", TORCH_BOX(&sample_matches)); }

}  // namespace structops
