// generate_proposals on the GPU, around the choice of the best (common/cuda/top_k.h), torch's sigmoid and exponential,
// and NMS: launchers, free of torch. S is the type of the maps: __half, __nv_bfloat16, float or double; C that of the
// result: double for double, else float.
#pragma once
#include <cuda_runtime_api.h>

#include "common/cuda/top_k.h"
#include "generate_proposals/generate_proposals.h"

namespace structops::cuda {

static_assert(kMaxProposalLevels <= kMaxScoreMaps);

// Pointers of the levels (ScoreData), and kLevelNumbers numbers for each on the host.
struct ProposalMaps {
  ScoreData objectness, deltas, anchors;
};

// What is chosen: chosen [images, levels, best], of each level's first slots.
struct ProposalChoice {
  const int32_t* chosen;
  int64_t best;
};

// logits [B, slots], and size codes [B, slots, 2] where there are anchors.
template <class S, class C>
cudaError_t proposal_codes(const ProposalParams& p, const ProposalMaps& maps, const int64_t* numbers,
                           const ProposalChoice& choice, C* logits, C* codes, cudaStream_t stream);

// scores and exponentials of those, image_sizes [B, 2] (height, width). Per slot its box [B, slots, 4], its level
// [B, slots] and whether it takes part [B, slots].
template <class S, class C>
cudaError_t proposal_boxes(const ProposalParams& p, const ProposalMaps& maps, const int64_t* numbers,
                           const ProposalChoice& choice, const C* scores, const C* exponentials, const C* image_sizes,
                           C* boxes, int64_t* level_of, bool* takes, cudaStream_t stream);

// proposals [B, post, 4] and proposal_scores [B, post] of the slots kept [B, post]; zero where that is -1.
template <class C>
cudaError_t gather_proposals(int64_t images, int64_t slots, int64_t post, const int64_t* kept, const C* boxes,
                             const C* scores, C* proposals, C* proposal_scores, cudaStream_t stream);

}  // namespace structops::cuda
