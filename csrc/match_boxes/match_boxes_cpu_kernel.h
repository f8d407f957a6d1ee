// A block of anchors against all ground truths of its image, compiled once per instruction set (foreach_isa.h).

#include "common/cpu/vec.h"

// The lanes' integers: as wide as T, so that one comparison chooses both an IoU and an index.
template <class T>
using Lane = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <class T>
struct LanesOf {
  typedef Lane<T> type __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
};
template <class T>
using Lanes = typename LanesOf<T>::type;

// A ground truth in every lane.
template <class T>
struct Truth {
  Vec<T> x1, y1, x2, y2, area;
  explicit Truth(const T* b)  // [4]
      : x1(broadcast(b[0])),
        y1(broadcast(b[1])),
        x2(broadcast(b[2])),
        y2(broadcast(b[3])),
        area((x2 - x1) * (y2 - y1)) {}
};

template <class T>
class AnchorBlock {
  using V = Vec<T>;
  static constexpr int W = kLanes<T>;
  struct Boxes {
    V x1, y1, x2, y2, area;
  };
  Boxes boxes_[kMatchBlock / W];
  int64_t vectors_;

 public:
  T low_x, low_y, high_x, high_y;  // around all boxes, those with a NaN left out

  // anchors [count, 4]; the last vector is filled up with NaN, which meets nothing.
  AnchorBlock(const T* anchors, int64_t count) : vectors_((count + W - 1) / W) {
    V low_xs = broadcast(std::numeric_limits<T>::infinity()), low_ys = low_xs, high_xs = -low_xs, high_ys = -low_xs;
    for (int64_t v = 0; v < vectors_; ++v) {
      Boxes& b = boxes_[v];
      if ((v + 1) * W > count) b.x1 = b.y1 = b.x2 = b.y2 = broadcast(std::numeric_limits<T>::quiet_NaN());
      const T* from = anchors + 4 * v * W;
      for (int64_t l = 0; l < std::min<int64_t>(W, count - v * W); ++l) {
        b.x1[l] = from[4 * l];
        b.y1[l] = from[4 * l + 1];
        b.x2[l] = from[4 * l + 2];
        b.y2[l] = from[4 * l + 3];
      }
      b.area = (b.x2 - b.x1) * (b.y2 - b.y1);
      low_xs = min(b.x1, low_xs), low_ys = min(b.y1, low_ys);
      high_xs = max(b.x2, high_xs), high_ys = max(b.y2, high_ys);
    }
    low_x = low_y = std::numeric_limits<T>::infinity();
    high_x = high_y = -low_x;
    for (int l = 0; l < W; ++l) {
      low_x = std::min(low_x, low_xs[l]), low_y = std::min(low_y, low_ys[l]);
      high_x = std::max(high_x, high_xs[l]), high_y = std::max(high_y, high_ys[l]);
    }
  }

  bool meets(const T* b) const { return b[0] < high_x && b[1] < high_y && low_x < b[2] && low_y < b[3]; }

  int64_t vectors() const { return vectors_; }

  // Whether any lane of a vector may have an IoU above 0.
  bool meets(const Truth<T>& t, int64_t v) const {
    const Boxes& b = boxes_[v];
    return bits(less_equal(max(t.x1, b.x1), min(t.x2, b.x2)) & less_equal(max(t.y1, b.y1), min(t.y2, b.y2))) != 0;
  }

  // In the order of torchvision's roundings. A NaN coordinate makes its box's area NaN, and so the IoU.
  V iou(const Truth<T>& t, int64_t v) const {
    const Boxes& b = boxes_[v];
    const V zero{};
    const V width = max(min(t.x2, b.x2) - max(t.x1, b.x1), zero);
    const V height = max(min(t.y2, b.y2) - max(t.y1, b.y1), zero);
    const V intersection = width * height;
    return intersection / (t.area + b.area - intersection);
  }
};

// anchors [count, 4] against truths [truth_count, 4]: each anchor's best IoU and the first ground truth that has it;
// block_best [truth_count], or null: each ground truth's best among these anchors. NaN is no better than 0.
template <class T>
void match_block(const T* anchors, int64_t count, const T* truths, int64_t truth_count, T* best, int64_t* match,
                 T* block_best) {
  constexpr int W = kLanes<T>;
  using V = Vec<T>;
  const AnchorBlock<T> block(anchors, count);
  V best_iou[kMatchBlock / W];
  Lanes<T> best_truth[kMatchBlock / W];
  for (int64_t v = 0; v < block.vectors(); ++v) best_iou[v] = V{}, best_truth[v] = Lanes<T>{};
  for (int64_t t = 0; t < truth_count; ++t) {
    V highest{};
    if (block.meets(truths + 4 * t)) {
      const Truth<T> truth(truths + 4 * t);
      const Lanes<T> index = Lanes<T>{} + static_cast<Lane<T>>(t);
      for (int64_t v = 0; v < block.vectors(); ++v) {
        if (!block.meets(truth, v)) continue;
        const V iou = block.iou(truth, v);
        const auto better = iou > best_iou[v];
        best_iou[v] = better ? iou : best_iou[v];
        best_truth[v] = better ? index : best_truth[v];
        highest = max(iou, highest);
      }
    }
    if (block_best != nullptr) {
      T one = 0;
      for (int l = 0; l < W; ++l) one = std::max(one, highest[l]);
      block_best[t] = one;
    }
  }
  std::memcpy(best, best_iou, count * sizeof(T));
  const auto* lane = reinterpret_cast<const Lane<T>*>(best_truth);
  for (int64_t i = 0; i < count; ++i) match[i] = lane[i];
}

// Turns match [count] into labels, given each anchor's best IoU. restored [count], or null: keeps its match whatever.
template <class T>
void label_block(const T* best, const Lane<T>* restored, int64_t count, T high, T low, int64_t* match) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t none = best[i] >= low ? kBetweenThresholds : kBelowLowThreshold;
    const bool keep = best[i] >= high || (restored != nullptr && restored[i] != 0);
    match[i] = keep ? match[i] : none;
  }
}

// The same where ground truths get back the anchors that attain their best IoU, truth_best [truth_count]. Only those
// whose best lies in this block are looked at again: a handful of (block, ground truth) pairs.
template <class T>
void restore_and_label_block(const T* anchors, int64_t count, const T* truths, int64_t truth_count, const T* truth_best,
                             const T* block_best, const T* best, T high, T low, int64_t* match) {
  constexpr int W = kLanes<T>;
  int64_t t = 0;
  while (t < truth_count && block_best[t] != truth_best[t]) ++t;
  if (t == truth_count) return label_block<T>(best, nullptr, count, high, low, match);
  const AnchorBlock<T> block(anchors, count);
  alignas(64) Lane<T> restored[kMatchBlock];
  std::memset(restored, 0, sizeof restored);
  for (; t < truth_count; ++t) {
    if (block_best[t] != truth_best[t]) continue;
    const Truth<T> truth(truths + 4 * t);
    for (int64_t v = 0; v < block.vectors(); ++v) {
      Lanes<T> lanes;
      std::memcpy(&lanes, restored + v * W, sizeof lanes);
      lanes |= block.iou(truth, v) == broadcast(truth_best[t]);
      std::memcpy(restored + v * W, &lanes, sizeof lanes);
    }
  }
  label_block<T>(best, restored, count, high, low, match);
}
