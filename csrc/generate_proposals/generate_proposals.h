// The region proposal stage, from a head's maps to proposals: how the maps are read, for the CPU and GPU alike.
//
// An image has a slot for each of the best scores of each level, level after level, the best first. Everything after
// the choice is done slot by slot.
#pragma once
#include <cstdint>

#include "common/box_coding.h"
#include "common/score_map.h"

namespace structops {

constexpr int64_t kMaxProposalLevels = 8;

// One level of the pyramid; strides in elements. The index of a score is (y * width + x) * cell + a.
struct ProposalLevel {
  const void* objectness;       // [B, A, H, W]
  const void* deltas;           // [B, 4A, H, W], of the same type; (dx, dy, dw, dh) of an anchor side by side
  const void* anchors;          // of the type of the result: [A, 4] about the cell (0, 0), or [H * W * A, 4]; null: the
                                // deltas are boxes
  int64_t cell, height, width;  // anchors of a cell: A
  int64_t objectness_stride[4], delta_stride[4];  // (b, c, h, w)
  int64_t stride_y, stride_x;                     // between cells, in pixels of the image
  int64_t grid;                                   // whether anchors are those of the cell (0, 0)
  int64_t slots;                                  // of an image
};
// A level's numbers on the host, in the order of the fields from `cell` on: launchers take levels so.
constexpr int kLevelNumbers = 15;

inline ProposalLevel proposal_level(const int64_t* n, const void* objectness, const void* deltas, const void* anchors) {
  return {objectness, deltas, anchors, n[0], n[1], n[2], {n[3], n[4], n[5], n[6]}, {n[7], n[8], n[9], n[10]},
          n[11],      n[12],  n[13],   n[14]};
}

inline ScoreShape score_shape(const ProposalLevel& l) {
  const int64_t* stride = l.objectness_stride;
  return {{l.height, l.width, l.cell}, {stride[2], stride[3], stride[1]}};
}

// By name: the emulator of the tests passes structs field by field.
struct ProposalParams {
  int64_t images, levels, slots;
  double weight_x, weight_y, weight_width, weight_height;  // that deltas are divided by,
  bool reciprocals;                                        // as torch does on a GPU
  double clip;                                             // of the logarithms of sizes
  double min_size, score_threshold;
};

// A score of a level: image, anchor of the cell, row, column.
struct ProposalPlace {
  int64_t image, a, y, x;
};

STRUCTOPS_HOST_DEVICE ProposalPlace proposal_place(const ProposalLevel& l, int64_t image, int64_t index) {
  const int64_t at = index / l.cell, y = at / l.width;
  return {image, index - at * l.cell, y, at - y * l.width};
}

// Where, among the elements of objectness, its score is; and among those of the deltas its first.
STRUCTOPS_HOST_DEVICE int64_t score_offset(const ProposalLevel& l, const ProposalPlace& p) {
  const int64_t* stride = l.objectness_stride;
  return p.image * stride[0] + p.a * stride[1] + p.y * stride[2] + p.x * stride[3];
}
STRUCTOPS_HOST_DEVICE int64_t delta_offset(const ProposalLevel& l, const ProposalPlace& p) {
  const int64_t* stride = l.delta_stride;
  return p.image * stride[0] + 4 * p.a * stride[1] + p.y * stride[2] + p.x * stride[3];
}

template <class C>
STRUCTOPS_HOST_DEVICE BoxOf<C> anchor_at(const ProposalLevel& l, const ProposalPlace& p) {
  const C* a = static_cast<const C*>(l.anchors) + 4 * (l.grid ? p.a : (p.y * l.width + p.x) * l.cell + p.a);
  if (!l.grid) return {a[0], a[1], a[2], a[3]};
  const C x = static_cast<C>(p.x * l.stride_x), y = static_cast<C>(p.y * l.stride_y);
  return {x + a[0], y + a[1], x + a[2], y + a[3]};
}

// The box of four deltas, clipped to its image [2] (height, width); sizes [2]: exponentials of its size codes.
template <class C>
STRUCTOPS_HOST_DEVICE BoxOf<C> proposal_box(const ProposalParams& params, const ProposalLevel& l,
                                            const ProposalPlace& p, const C (&deltas)[4], const C* sizes,
                                            const C* image_size) {
  BoxOf<C> box{deltas[0], deltas[1], deltas[2], deltas[3]};
  if (l.anchors != nullptr)
    box = decode_deltas(centre_size(anchor_at<C>(l, p)), unweighted(deltas[0], params.weight_x, params.reciprocals),
                        unweighted(deltas[1], params.weight_y, params.reciprocals), sizes[0], sizes[1]);
  return clip(box, image_size[0], image_size[1]);
}

// Neither small, nor of a low score, nor NaN.
template <class C>
STRUCTOPS_HOST_DEVICE bool is_proposal(const ProposalParams& params, const BoxOf<C>& box, C score) {
  const C least = static_cast<C>(params.min_size);
  return box.x2 - box.x1 >= least && box.y2 - box.y1 >= least && score >= static_cast<C>(params.score_threshold);
}

}  // namespace structops
