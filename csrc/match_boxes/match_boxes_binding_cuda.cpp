// match_boxes for torch on CUDA: checks, allocation, launches on the current stream. Nothing waits for the GPU.
#include <tuple>

#include "common/cuda/binding.h"
#include "match_boxes/match_boxes_checks.h"
#include "match_boxes/match_boxes_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

template <class T>
void run(const MatchTensors& t, ScalarType bits) {
  const MatchParams& p = t.params;
  const auto scratch = [&](int64_t size) { return empty({p.low_quality ? size : 0}, bits, t.gt); };
  Tensor block_best = scratch(cuda::match_boxes_block_best(p)), truth_best = scratch(p.images * p.truths);
  if (truth_best.numel() > 0) torch::stable::zero_(truth_best);
  STD_CUDA_CHECK(cuda::match_boxes(p, data<T>(t.gt), data<T>(t.anchors), data<int64_t>(t.valid),
                                   mutable_data<cuda::IouBits<T>>(block_best),
                                   mutable_data<cuda::IouBits<T>>(truth_best), mutable_data<int64_t>(t.matches),
                                   mutable_data<T>(t.ious), cuda::current_stream(t.gt)));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor> match_boxes(const Tensor& gt, const Tensor& anchors, double high_threshold,
                                       double low_threshold, bool allow_low_quality_matches,
                                       const OptionalTensor& valid) {
  check_match_boxes(gt, anchors, high_threshold, low_threshold, valid);
  const DeviceGuard guard(gt.get_device_index());
  const MatchTensors t(gt, anchors, high_threshold, low_threshold, allow_low_quality_matches, valid);
  // Scratch in the integer type of the IoU's width.
  t.type == ScalarType::Double ? run<double>(t, ScalarType::Long) : run<float>(t, ScalarType::Int);
  return {t.matches, t.ious};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("match_boxes", TORCH_BOX(&match_boxes)); }

}  // namespace structops
