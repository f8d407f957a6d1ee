// The best k of many scores on the GPU, in order: launchers, free of torch. What common/cpu/top_k.h is on the CPU.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "common/score_map.h"

namespace structops::cuda {

constexpr int kMaxScoreMaps = 8;

// One pointer a map, the rest null. By name: the emulator of the tests passes structs field by field.
struct ScoreData {
  const void *m0, *m1, *m2, *m3, *m4, *m5, *m6, *m7;
};

// Segments: every class of every image of every map.
struct TopK {
  int64_t maps, images, classes;
  int64_t k;
  double above;  // only scores greater than it; kNoFloor: all
};

// The longest k that top_k takes. A block holds 16384 scores, of doubles 8192: a part.
constexpr int64_t kMaxTopK = 2048;

// A map is described by kScoreMapNumbers numbers on the host: size (3), stride (3), distance of images, of classes, all
// in elements; ScoreShape says what index a score has.
constexpr int kScoreMapNumbers = 8;

// Bytes of device memory that top_k needs.
template <class T>
size_t top_k_workspace(const TopK& p, const int64_t* maps);

// indices [images, maps, classes, k]: of the best scores of each segment by falling score, ties by the lower index (-0
// ties with +0), NaN last; -1 where there are no more. T is __half, __nv_bfloat16, float or double; p.k <= kMaxTopK.
// One launch where every segment is at most a part, two up to some 250,000 scores (k = 1000); nothing waits for the
// GPU.
template <class T>
cudaError_t top_k(const TopK& p, const ScoreData& data, const int64_t* maps, void* workspace, int32_t* indices,
                  cudaStream_t stream);

// For k beyond kMaxTopK: keys [images, classes, scores] of one map, in the order of the index, whose rising order, ties
// as they are, is that of top_k. To be sorted by torch. Key is int32_t, for double int64_t; p.above is not looked at.
template <class T, class Key>
cudaError_t top_k_keys(const TopK& p, const ScoreData& data, const int64_t* maps, int64_t map, Key* keys,
                       cudaStream_t stream);

}  // namespace structops::cuda
