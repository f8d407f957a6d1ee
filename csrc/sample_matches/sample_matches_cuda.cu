// Sampling anchors on the GPU: a random priority for each, the best of each kind by top_k, and then as many as wanted.
// Four or five launches, whose time is their number.
#include "common/cuda/device.cuh"
#include "match_boxes/match_boxes.h"
#include "sample_matches/sample_matches_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridY = 65535;

// Grid: blocks of anchors, images.
__global__ void __launch_bounds__(kThreads)
    sample_priorities_kernel(const SampleParams p, const int64_t* __restrict__ matches,
                             const int64_t* __restrict__ seed, float* __restrict__ priorities) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.anchors) return;
  for (int64_t image = blockIdx.y; image < p.images; image += gridDim.y) {
    const int64_t match = matches[image * p.anchors + i];
    // Positive floats have the order of their bits. This adds the smallest exponent: none is subnormal.
    const float priority = __uint_as_float(0x00800000u + priority_of(random_numbers(*seed, image), i));
    float* row = priorities + 2 * image * p.anchors + i;
    row[0] = match >= 0 ? priority : 0.0f;
    row[p.anchors] = match == kBelowLowThreshold ? priority : 0.0f;
  }
}

// A block for each image.
__global__ void __launch_bounds__(kThreads)
    sample_choose_kernel(const SampleParams p, const int32_t* __restrict__ best, int64_t* __restrict__ positives,
                         int64_t* __restrict__ negatives, int64_t* __restrict__ counts) {
  const int64_t image = blockIdx.x;
  const int samples = static_cast<int>(p.samples), thread = threadIdx.x;
  const int32_t* row = best + 2 * image * samples;
  // Indices come first in a row, so the number of them that a thread meets adds up to where they end.
  int count = 0;
  for (int i = 0; i < static_cast<int>(p.positives); i += kThreads)
    count += __syncthreads_count(i + thread < static_cast<int>(p.positives) && row[i + thread] >= 0);
  const int wanted = samples - count;
  int negative_count = 0;
  for (int i = 0; i < samples; i += kThreads) {
    const int at = i + thread;
    const bool exists = at < samples;
    if (exists && at < static_cast<int>(p.positives)) positives[image * p.positives + at] = row[at];
    const int32_t negative = exists && at < wanted ? row[samples + at] : -1;
    if (exists) negatives[image * samples + at] = negative;
    negative_count += __syncthreads_count(negative >= 0);
  }
  if (thread == 0) {
    counts[2 * image] = count;
    counts[2 * image + 1] = negative_count;
  }
}

}  // namespace

cudaError_t sample_priorities(const SampleParams& p, const int64_t* matches, const int64_t* seed, float* priorities,
                              cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(p.anchors, kThreads)),
                  static_cast<unsigned>(p.images < kMaxGridY ? p.images : kMaxGridY));
  return launch(sample_priorities_kernel, grid, dim3(kThreads), 0, stream, p, matches, seed, priorities);
}

cudaError_t sample_choose(const SampleParams& p, const int32_t* best, int64_t* positives, int64_t* negatives,
                          int64_t* counts, cudaStream_t stream) {
  return launch(sample_choose_kernel, dim3(static_cast<unsigned>(p.images)), dim3(kThreads), 0, stream, p, best,
                positives, negatives, counts);
}

}  // namespace structops::cuda
