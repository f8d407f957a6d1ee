// Greedy suppression among the rotated boxes of one class, compiled once per instruction set (foreach_isa.h).
//
// Going down the scores, a box still undecided is kept, and suppresses undecided ones. Which of them it meets is asked
// in three steps: the bounds of leaves, a vector of leaves at a time; the bounds of a leaf's boxes, a vector of boxes;
// then the IoU. Whatever is undecided scores lower, so leaves may lie in any order: by place where there are many.

#include "box_iou_rotated/rotated_lanes.h"

// The undecided boxes [first, first + n) of one class, numbered from 0 by falling score. A slot is a place in a leaf.
class Leaves {
  static constexpr int64_t W = kLanes<float>;
  // Below this many boxes all leaves are scanned: sorting and asking leaves first costs more (300 boxes: 20 us by
  // either way).
  static constexpr int64_t kSorted = 320;

 public:
  Leaves(const RotatedBoxes& boxes, int64_t first, int64_t n, double threshold)
      : size_(n),
        leaves_((n + W - 1) / W),
        share_(rotated_share(threshold)),
        box_(std::make_unique_for_overwrite<uint32_t[]>(n)),
        slot_(std::make_unique_for_overwrite<uint32_t[]>(n)),
        undecided_(std::make_unique_for_overwrite<uint32_t[]>(leaves_)),
        open_(std::make_unique_for_overwrite<uint32_t[]>((leaves_ + W - 1) / W)),
        sides_(std::make_unique_for_overwrite<float[]>(leaves_ * W)),
        bounds_(leaves_ * W),
        around_(leaves_ + W) {
    order(boxes.bounds(), first);
    const BoundsColumns given = boxes.bounds();
    for (int64_t s = 0; s < leaves_ * W; ++s) {
      const int64_t i = s < n ? first + box_[s] : -1;
      for (int c = 0; c < 4; ++c) bounds_.column(c)[s] = i < 0 ? NAN : given.at[c][i];
      sides_[s] = i < 0 ? NAN : rotated_side(boxes[i].area);
    }
    for (int64_t l = 0; l < leaves_; ++l) {
      undecided_[l] = full(n - l * W);
      for (int c = 0; c < 4; ++c) {
        const float* values = bounds_.column(c) + l * W;
        const auto extreme = c < 2 ? std::min_element<const float*> : std::max_element<const float*>;
        around_.column(c)[l] = *extreme(values, values + std::min(n - l * W, W));
      }
    }
    for (int c = 0; c < 4; ++c) std::fill_n(around_.column(c) + leaves_, W, NAN);
    for (int64_t g = 0; g < (leaves_ + W - 1) / W; ++g) open_[g] = full(leaves_ - g * W);
  }

  // Whether the box is undecided still; from now on it is decided.
  bool take(int64_t box) {
    const bool undecided = undecided_[slot_[box] / W] >> (slot_[box] % W) & 1;
    if (undecided) decide(box);
    return undecided;
  }
  void decide(int64_t box) {
    const int64_t leaf = slot_[box] / W;
    undecided_[leaf] &= ~(1u << (slot_[box] % W));
    if (undecided_[leaf] == 0) open_[leaf / W] &= ~(1u << (leaf % W));
  }

  // Writes the undecided boxes whose IoU with this one can exceed the threshold; returns how many.
  int64_t near(int64_t box, uint32_t* out) const {
    const Reach reach(bounds_.columns(), slot_[box]);
    const Vec<float> side = broadcast(sides_[slot_[box]]), share = broadcast(share_);
    uint32_t* end = out;
    for (int64_t group = 0; group * W < leaves_; ++group) {
      uint32_t some = open_[group];
      if (some == 0) continue;
      for (some &= reach.meets(around_.columns(), group * W); some != 0; some &= some - 1) {
        const int64_t leaf = group * W + std::countr_zero(some);
        uint32_t mask = undecided_[leaf] & reach.meets(bounds_.columns(), leaf * W);
        if (mask == 0) continue;
        const Vec<float> sides = load(sides_.get() + leaf * W);
        mask &= ~(bits(less_equal(sides, share * side)) | bits(less_equal(side, share * sides)));
        for (; mask != 0; mask &= mask - 1) *end++ = box_[leaf * W + std::countr_zero(mask)];
      }
    }
    return end - out;
  }

 private:
  static uint32_t full(int64_t n) { return n >= W ? (uint64_t(1) << W) - 1 : (1u << n) - 1; }

  // Which box is in which slot.
  void order(const BoundsColumns& bounds, int64_t first) {
    std::iota(box_.get(), box_.get() + size_, 0u);
    if (size_ >= kSorted) {
      auto corners = std::make_unique_for_overwrite<float[]>(4 * size_);
      auto items = std::make_unique_for_overwrite<Indexed<uint32_t>[]>(2 * size_);
      for (int64_t i = 0; i < size_; ++i) {
        for (int c = 0; c < 4; ++c) corners[4 * i + c] = bounds.at[c][first + i];
        items[i].index = i;
      }
      const auto* sorted = sort_by_place(corners.get(), box_.get(), items.get(), items.get() + size_, size_);
      for (int64_t s = 0; s < size_; ++s) slot_[sorted[s].index] = s;
      for (int64_t i = 0; i < size_; ++i) box_[slot_[i]] = i;
    } else {
      std::iota(slot_.get(), slot_.get() + size_, 0u);
    }
  }

  int64_t size_, leaves_;
  float share_;
  std::unique_ptr<uint32_t[]> box_, slot_;        // of each slot; of each box
  std::unique_ptr<uint32_t[]> undecided_, open_;  // a bit for each box of a leaf; for each leaf of a group that has any
  std::unique_ptr<float[]> sides_;                // by slot: the square root of the area
  Bounds bounds_, around_;                        // by slot; of each leaf
};

// Boxes [first, last) of one class by falling score; clears kept[i - first] of those suppressed.
template <class Rounded>
void suppress(const RotatedBoxes& boxes, int64_t first, int64_t last, double threshold, uint8_t* kept) {
  const int64_t n = last - first;
  Leaves leaves(boxes, first, n, threshold);
  auto near = std::make_unique_for_overwrite<uint32_t[]>(n);
  auto iou = std::make_unique_for_overwrite<double[]>(n + kLanes<double>);
  for (int64_t i = 0; i < n; ++i) {
    kept[i] = leaves.take(i);
    if (!kept[i]) continue;
    const int64_t count = leaves.near(i, near.get());
    iou_of(boxes[first + i], boxes.data() + first, near.get(), count, iou.get());
    for (int64_t k = 0; k < count; ++k)
      if (static_cast<double>(static_cast<Rounded>(iou[k])) > threshold) leaves.decide(near[k]);
  }
}
