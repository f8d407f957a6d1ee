// generate_proposals on the CPU, around torch's sigmoid and exponential. S is the type of the maps, C of the result.
#pragma once
#include <type_traits>

#include "common/cpu/parallel.h"
#include "generate_proposals/generate_proposals.h"

namespace structops::cpu {

template <class S>
using ComputeOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

// The best of each level: chosen [B, slots] their indices in the level, logits [B, slots], and size codes
// [B, slots, 2], left alone where there are no anchors.
template <class S>
void choose_proposals(const ProposalParams& p, const ProposalLevel* levels, int32_t* chosen, ComputeOf<S>* logits,
                      ComputeOf<S>* codes, ParallelFor parallel_for);

// scores [B, slots] and exponentials [B, slots, 2] of those; image_sizes [B, 2] (height, width). Per slot its box
// [B, slots, 4], its level [B, slots] and whether it takes part [B, slots].
template <class S>
void decode_proposals(const ProposalParams& p, const ProposalLevel* levels, const int32_t* chosen,
                      const ComputeOf<S>* scores, const ComputeOf<S>* exponentials, const ComputeOf<S>* image_sizes,
                      ComputeOf<S>* boxes, int64_t* level_of, bool* takes, ParallelFor parallel_for);

}  // namespace structops::cpu
