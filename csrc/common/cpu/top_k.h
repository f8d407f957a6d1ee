// The best k of many scores, in order: what detectors do to every map of logits before anything else.
#pragma once
#include "common/score_map.h"

namespace structops::cpu {

// indices [k]: of the k best by falling score, ties by the lower index (-0 ties with +0), NaN last; of those greater
// than `above` only, unless that is kNoFloor. Returns how many there are; the rest of indices is -1.
// T is Half, BFloat16, float or double. Runs on the calling thread: share segments between threads.
template <class T>
int64_t top_k(const T* scores, const ScoreShape& shape, int64_t k, double above, int32_t* indices);

}  // namespace structops::cpu
