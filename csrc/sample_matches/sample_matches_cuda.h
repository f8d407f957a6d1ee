// Sampling anchors on the GPU: launchers, free of torch. Between them runs top_k (common/cuda/top_k.h).
#pragma once
#include <cuda_runtime_api.h>

#include "sample_matches/sample_matches.h"

namespace structops::cuda {

// priorities [images, 2, anchors], written: of positive anchors in the first row of an image, of negative ones in the
// second; those that are not of the row's kind have 0, all others more. matches [images, anchors]; seed [1].
cudaError_t sample_priorities(const SampleParams& p, const int64_t* matches, const int64_t* seed, float* priorities,
                              cudaStream_t stream);

// best [images, 2, p.samples]: the anchors of each row by falling priority, then -1. The results as cpu::sample_matches
// writes them.
cudaError_t sample_choose(const SampleParams& p, const int32_t* best, int64_t* positives, int64_t* negatives,
                          int64_t* counts, cudaStream_t stream);

}  // namespace structops::cuda
