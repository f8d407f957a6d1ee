// Sampling positive and negative anchors for a loss: parameters, the random numbers, and the CPU launcher.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_ON_CPU)
#define STRUCTOPS_SAMPLE_FUNCTION __host__ __device__ __forceinline__
#else
#define STRUCTOPS_SAMPLE_FUNCTION inline
#endif

namespace structops {

constexpr int64_t kMaxSamples = 2048;  // kMaxTopK of common/cuda/top_k.h

struct SampleParams {
  int64_t images, anchors;
  int64_t samples, positives;  // of an image: in all, and at most of them positive
};

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), whose n-th number is a
// function of n: no state, so that every anchor's is the same on every backend, in any order.
struct RandomNumbers {
  uint64_t start;

  STRUCTOPS_SAMPLE_FUNCTION static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  STRUCTOPS_SAMPLE_FUNCTION uint64_t operator()(int64_t n) const {
    return mix(start + (static_cast<uint64_t>(n) + 1) * 0x9e3779b97f4a7c15u);
  }
};

// A generator for each image, itself started by one of the seed's numbers.
STRUCTOPS_SAMPLE_FUNCTION RandomNumbers random_numbers(int64_t seed, int64_t image) {
  return {RandomNumbers{RandomNumbers{static_cast<uint64_t>(seed)}(0)}(image)};
}

// 30 bits. Of the anchors of a kind those of the highest priority are sampled, ties by the lower index.
STRUCTOPS_SAMPLE_FUNCTION uint32_t priority_of(const RandomNumbers& random, int64_t anchor) {
  return static_cast<uint32_t>(random(anchor) >> 34);
}

namespace cpu {

// matches [images, anchors]: 0 or more is positive, -1 negative. positives [images, p.positives], negatives
// [images, p.samples]: indices, then -1; counts [images, 2]; all written.
void sample_matches(const SampleParams& p, const int64_t* matches, int64_t seed, int64_t* positives, int64_t* negatives,
                    int64_t* counts, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
