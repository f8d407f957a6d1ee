// From the best scores of each level to boxes for NMS, and from what it keeps to proposals: a thread a slot.
//
// Launches for 5 levels of an image of 800 x 1333: 2 to choose (top_k.cu), 1 to gather, torch's sigmoid and
// exponential, 1 to decode, NMS (nms_cuda.cu, with torch's sorts), 1 to gather again. On an H200: 1.07 MB of
// objectness are read once, which takes 0.3 us; of the 4.3 MB of deltas 4,819 boxes are read, four sectors of 32 bytes
// each in a contiguous map and one in a channels_last map: 0.6 MB, and again to decode, from L2 then. So every kernel
// here lasts as long as a launch and two dependent loads. Estimated: about 3 us each, 9 in all, 12 to choose, 6 for
// torch's two, and some 70 for NMS of 4,819 boxes in five classes with its sorts. torchvision decodes all 268,569
// boxes, an operation a launch, chooses level by level, and waits for the GPU to know how many boxes each filter
// leaves.
#include "common/cuda/device.cuh"
#include "generate_proposals/generate_proposals_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

struct Pyramid {
  ProposalLevel level[kMaxProposalLevels];

  Pyramid(const ProposalParams& p, const ProposalMaps& maps, const int64_t* numbers) : level{} {
    const auto pointers = [](const ScoreData& d, int64_t l) {
      const void* const all[] = {d.m0, d.m1, d.m2, d.m3, d.m4, d.m5, d.m6, d.m7};
      return all[l];
    };
    for (int64_t l = 0; l < p.levels; ++l)
      level[l] = proposal_level(numbers + l * kLevelNumbers, pointers(maps.objectness, l), pointers(maps.deltas, l),
                                pointers(maps.anchors, l));
  }
};

struct Slot {
  int64_t image, at;  // at: of all images
  int level;
  ProposalPlace place;
};

// This thread's slot; false: it has none.
__device__ __forceinline__ bool find_slot(const ProposalParams& p, const Pyramid& pyramid, const ProposalChoice& choice,
                                          Slot& slot) {
  slot.at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (slot.at >= p.images * p.slots) return false;
  slot.image = slot.at / p.slots;
  int64_t rank = slot.at - slot.image * p.slots;
  slot.level = 0;
  while (rank >= pyramid.level[slot.level].slots) rank -= pyramid.level[slot.level++].slots;
  const int64_t index = choice.chosen[(slot.image * p.levels + slot.level) * choice.best + rank];
  slot.place = proposal_place(pyramid.level[slot.level], slot.image, index);
  return true;
}

template <class S, class C>
__global__ void __launch_bounds__(kThreads)
    proposal_codes_kernel(const __grid_constant__ ProposalParams p, const __grid_constant__ Pyramid pyramid,
                          const ProposalChoice choice, C* __restrict__ logits, C* __restrict__ codes) {
  Slot slot;
  if (!find_slot(p, pyramid, choice, slot)) return;
  const ProposalLevel& l = pyramid.level[slot.level];
  logits[slot.at] = up(__ldg(static_cast<const S*>(l.objectness) + score_offset(l, slot.place)));
  if (l.anchors == nullptr) return;
  const S* delta = static_cast<const S*>(l.deltas) + delta_offset(l, slot.place);
  codes[2 * slot.at] = size_code<C>(up(__ldg(delta + 2 * l.delta_stride[1])), p.weight_width, p.reciprocals, p.clip);
  codes[2 * slot.at + 1] =
      size_code<C>(up(__ldg(delta + 3 * l.delta_stride[1])), p.weight_height, p.reciprocals, p.clip);
}

template <class S, class C>
__global__ void __launch_bounds__(kThreads)
    proposal_boxes_kernel(const __grid_constant__ ProposalParams p, const __grid_constant__ Pyramid pyramid,
                          const ProposalChoice choice, const C* __restrict__ scores, const C* __restrict__ exponentials,
                          const C* __restrict__ image_sizes, BoxOf<C>* __restrict__ boxes,
                          int64_t* __restrict__ level_of, bool* __restrict__ takes) {
  Slot slot;
  if (!find_slot(p, pyramid, choice, slot)) return;
  const ProposalLevel& l = pyramid.level[slot.level];
  const S* delta = static_cast<const S*>(l.deltas) + delta_offset(l, slot.place);
  C four[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) four[c] = up(__ldg(delta + c * l.delta_stride[1]));
  const BoxOf<C> box = proposal_box(p, l, slot.place, four, exponentials + 2 * slot.at, image_sizes + 2 * slot.image);
  boxes[slot.at] = box;
  level_of[slot.at] = slot.level;
  takes[slot.at] = is_proposal(p, box, scores[slot.at]);
}

template <class C>
__global__ void __launch_bounds__(kThreads)
    gather_proposals_kernel(int64_t count, int64_t slots, int64_t post, const int64_t* __restrict__ kept,
                            const BoxOf<C>* __restrict__ boxes, const C* __restrict__ scores,
                            BoxOf<C>* __restrict__ proposals, C* __restrict__ proposal_scores) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t slot = kept[i], from = i / post * slots + slot;
  proposals[i] = slot < 0 ? BoxOf<C>{} : boxes[from];
  proposal_scores[i] = slot < 0 ? C(0) : scores[from];
}

dim3 grid_of(int64_t threads) { return dim3(unsigned(ceil_div<int64_t>(threads, kThreads))); }

}  // namespace

template <class S, class C>
cudaError_t proposal_codes(const ProposalParams& p, const ProposalMaps& maps, const int64_t* numbers,
                           const ProposalChoice& choice, C* logits, C* codes, cudaStream_t stream) {
  return launch(proposal_codes_kernel<S, C>, grid_of(p.images * p.slots), dim3(kThreads), 0, stream, p,
                Pyramid(p, maps, numbers), choice, logits, codes);
}

template <class S, class C>
cudaError_t proposal_boxes(const ProposalParams& p, const ProposalMaps& maps, const int64_t* numbers,
                           const ProposalChoice& choice, const C* scores, const C* exponentials, const C* image_sizes,
                           C* boxes, int64_t* level_of, bool* takes, cudaStream_t stream) {
  return launch(proposal_boxes_kernel<S, C>, grid_of(p.images * p.slots), dim3(kThreads), 0, stream, p,
                Pyramid(p, maps, numbers), choice, scores, exponentials, image_sizes,
                reinterpret_cast<BoxOf<C>*>(boxes), level_of, takes);
}

template <class C>
cudaError_t gather_proposals(int64_t images, int64_t slots, int64_t post, const int64_t* kept, const C* boxes,
                             const C* scores, C* proposals, C* proposal_scores, cudaStream_t stream) {
  return launch(gather_proposals_kernel<C>, grid_of(images * post), dim3(kThreads), 0, stream, images * post, slots,
                post, kept, reinterpret_cast<const BoxOf<C>*>(boxes), scores, reinterpret_cast<BoxOf<C>*>(proposals),
                proposal_scores);
}

#define INSTANTIATE(S, C)                                                                                             \
  template cudaError_t proposal_codes<S, C>(const ProposalParams&, const ProposalMaps&, const int64_t*,               \
                                            const ProposalChoice&, C*, C*, cudaStream_t);                             \
  template cudaError_t proposal_boxes<S, C>(const ProposalParams&, const ProposalMaps&, const int64_t*,               \
                                            const ProposalChoice&, const C*, const C*, const C*, C*, int64_t*, bool*, \
                                            cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE
template cudaError_t gather_proposals<float>(int64_t, int64_t, int64_t, const int64_t*, const float*, const float*,
                                             float*, float*, cudaStream_t);
template cudaError_t gather_proposals<double>(int64_t, int64_t, int64_t, const int64_t*, const double*, const double*,
                                              double*, double*, cudaStream_t);

}  // namespace structops::cuda
