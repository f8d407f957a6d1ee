// Greedy suppression among the rotated boxes of one class, compiled once per instruction set (foreach_isa.h).
//
// Each box kept is held against the undecided ones after it in two steps: by bounds in float32, 16 at a time, which
// leaves a few of a hundred; then by the IoU itself.

#include "box_iou_rotated/rotated_lanes.h"

// Pairs whose areas alone keep the IoU at or below the threshold: the smaller is less than threshold * the larger.
// Compared by square roots, which a float32 holds; those of boxes that it does not hold are NaN, and pass.
class AreaRatio {
 public:
  AreaRatio(const RotatedBoxes& boxes, int64_t first, int64_t last, double threshold)
      // A hundred-thousandth for all roundings.
      : share_(static_cast<float>(std::sqrt(std::min(threshold, 1.0)) * (1 - 1e-5))),
        sides_(std::make_unique_for_overwrite<float[]>(last - first + RotatedBoxes::kPadding)) {
    for (int64_t i = first; i < last; ++i) {
      const double side = std::sqrt(boxes[i].area);
      sides_[i - first] = side > 1e-30 && side < 1e30 ? static_cast<float>(side) : NAN;
    }
  }
  // Bit l: excluded between boxes i and first + l, counted from the first of the class.
  uint32_t excludes(int64_t i, int64_t first) const {
    const Vec<float> mine = broadcast(sides_[i]), others = load(sides_.get() + first), share = broadcast(share_);
    return bits(less_equal(others, share * mine)) | bits(less_equal(mine, share * others));
  }

 private:
  float share_;
  std::unique_ptr<float[]> sides_;
};

// Boxes [first, last) of one class by falling score; clears kept[i - first] of those suppressed.
template <class Rounded>
void suppress(const RotatedBoxes& boxes, int64_t first, int64_t last, double threshold, uint8_t* kept) {
  constexpr int64_t W = kLanes<float>;
  const int64_t n = last - first, leaves = (n + W - 1) / W;
  const AreaRatio ratio(boxes, first, last, threshold);
  auto undecided = std::make_unique_for_overwrite<uint32_t[]>(leaves);
  for (int64_t l = 0; l < leaves; ++l) undecided[l] = n - l * W >= W ? (uint64_t(1) << W) - 1 : (1u << (n - l * W)) - 1;
  auto near = std::make_unique_for_overwrite<uint32_t[]>(n);
  auto iou = std::make_unique_for_overwrite<double[]>(n + kLanes<double>);
  for (int64_t i = 0; i < n; ++i) {
    if ((undecided[i / W] >> (i % W) & 1) == 0) {
      kept[i] = 0;
      continue;
    }
    undecided[i / W] &= ~(1u << (i % W));
    const Reach reach(boxes, first + i);
    int64_t count = 0;
    for (int64_t leaf = i / W; leaf < leaves; ++leaf) {
      uint32_t mask = undecided[leaf];
      if (mask == 0) continue;
      mask &= reach.meets(boxes, first + leaf * W);
      if (mask == 0) continue;
      for (mask &= ~ratio.excludes(i, leaf * W); mask != 0; mask &= mask - 1)
        near[count++] = leaf * W + std::countr_zero(mask);
    }
    iou_of(boxes[first + i], boxes.boxes() + first, near.get(), count, iou.get());
    for (int64_t k = 0; k < count; ++k)
      if (static_cast<double>(static_cast<Rounded>(iou[k])) > threshold)
        undecided[near[k] / W] &= ~(1u << (near[k] % W));
  }
}
