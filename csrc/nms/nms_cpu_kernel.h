// Greedy suppression among the boxes of one class, compiled once per instruction set (foreach_isa.h).
//
// The boxes lie in leaves of one vector's lanes, each with a mask of its undecided boxes. Going down the
// scores, a box still in its mask is kept, and clears from the masks those it suppresses. Whatever is left
// in the masks scores lower, so the leaves may lie in any order: by score where there are few boxes (all
// leaves are scanned), else by place, under a tree of bounding boxes whose masks prune decided branches.

#include "common/cpu/vec.h"

// The undecided boxes of one class. limit: the largest T not above the threshold; 0 <= limit < 1.
template <class T>
class Candidates {
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;
  struct Leaf {
    V x1, y1, x2, y2, area;
  };
  struct Node {
    V low_x, low_y, high_x, high_y;
  };  // bounds of the cores below each child

  T limit_, core_;
  int64_t first_[40];  // where the masks of each level begin; level 0 are the leaves
  int top_ = 0;        // the level that is one node; 0: no tree
  std::unique_ptr<Leaf[]> leaves_;
  std::unique_ptr<Node[]> nodes_;
  std::unique_ptr<uint32_t[]> masks_;

  // Two boxes with IoU > limit have, along each axis, an intersection over union > limit too, hence
  // overlap > limit / (1 + limit) * (sum of their lengths). Cut by that share of its length at both
  // ends, their intervals still meet: at 0.5 the third in the middle, a ninth of the area to search.
  // The share is 2^-16 too small, against 20 roundings of 2^-24 in lengths, areas and IoU; the ends
  // themselves may be rounded, since rounding keeps the order of the exact values. Relative error is
  // no measure where products underflow: tiny boxes and limits are not cut.
  void core(V x1, V x2, V area, V& low, V& high) const {
    const V tiny = V{} + std::numeric_limits<T>::min() * T(1 << 30);
    const V cut = area < tiny ? V{} : (x2 - x1) * core_;
    low = x1 + cut;
    high = x2 - cut;
  }

  static T lowest(V v) {
    T out = v[0];
    for (int l = 1; l < W; ++l) out = v[l] < out ? v[l] : out;
    return out;
  }
  static T highest(V v) {
    T out = v[0];
    for (int l = 1; l < W; ++l) out = v[l] > out ? v[l] : out;
    return out;
  }

  void clear(int level, int64_t i, uint32_t gone) {
    while ((masks_[first_[level] + i] &= ~gone) == 0 && level < top_) {
      gone = 1u << (i % W);
      i /= W;
      ++level;
    }
  }

  struct Query {
    V x1, y1, x2, y2, area, low_x, low_y, high_x, high_y;
  };

  void test_leaf(const Query& q, int64_t i) {
    const Leaf& b = leaves_[i];
    const V zero{};
    const V inter = max(min(q.x2, b.x2) - max(q.x1, b.x1), zero) * max(min(q.y2, b.y2) - max(q.y1, b.y1), zero);
    const V joint = q.area + b.area - inter;
    const V limit = zero + limit_;
    // The division, without dividing: inter / joint > limit needs inter >= limit * joint, and still
    // does with the product rounded, because inter is a T already. Few leaves get past.
    const uint32_t mask = masks_[i] & bits(less_equal(limit * joint, inter));
    if (mask == 0) return;
    const uint32_t gone = mask & ~bits(less_equal(inter / joint, limit));
    if (gone != 0) clear(0, i, gone);
  }

  void descend(const Query& q, int level, int64_t i) {
    const Node& n = nodes_[first_[level] - first_[1] + i];
    uint32_t mask = masks_[first_[level] + i] & bits(less_equal(n.low_x, q.high_x) & less_equal(n.low_y, q.high_y) &
                                                     less_equal(q.low_x, n.high_x) & less_equal(q.low_y, n.high_y));
    for (; mask != 0; mask &= mask - 1) {
      const int64_t child = i * W + std::countr_zero(mask);
      if (level == 1)
        test_leaf(q, child);
      else
        descend(q, level - 1, child);
    }
  }

 public:
  // items [n]: index of each box in order [...] -> boxes [..., 4], in the order of the leaves.
  Candidates(const T* boxes, const uint32_t* order, const Indexed<uint32_t>* items, int64_t n, T limit, bool tree)
      : limit_(limit), core_(limit < T(1) / 1024 ? T(0) : limit / (1 + limit) * (1 - T(1) / 65536)) {
    int64_t count = (n + W - 1) / W, total = count;
    first_[0] = 0;
    first_[1] = count;
    if (tree)
      for (int64_t c = count; c > 1; ++top_) {
        c = (c + W - 1) / W;
        total += c;
        first_[top_ + 2] = total;
      }
    leaves_ = std::make_unique_for_overwrite<Leaf[]>(count);
    masks_ = std::make_unique_for_overwrite<uint32_t[]>(total);
    nodes_ = std::make_unique_for_overwrite<Node[]>(total - count);
    for (int64_t i = 0; i < count * W; ++i) {  // the last leaf is filled up with copies of the last box
      const T* b = boxes + 4 * static_cast<int64_t>(order[items[std::min(i, n - 1)].index]);
      Leaf& leaf = leaves_[i / W];
      const int l = i % W;
      leaf.x1[l] = b[0], leaf.y1[l] = b[1], leaf.x2[l] = b[2], leaf.y2[l] = b[3];
    }
    for (int64_t i = 0; i < count; ++i) {
      leaves_[i].area = (leaves_[i].x2 - leaves_[i].x1) * (leaves_[i].y2 - leaves_[i].y1);
      masks_[i] = full(n - i * W);
    }
    for (int level = 1; level <= top_; ++level) {
      const int64_t below = first_[level] - first_[level - 1];
      for (int64_t i = 0; i < first_[level + 1] - first_[level]; ++i) {
        Node& node = nodes_[first_[level] - first_[1] + i];
        masks_[first_[level] + i] = full(below - i * W);
        for (int l = 0; l < W; ++l) {
          const int64_t child = std::min(i * W + l, below - 1);
          Node c;
          if (level == 1) {
            const Leaf& leaf = leaves_[child];
            core(leaf.x1, leaf.x2, leaf.area, c.low_x, c.high_x);
            core(leaf.y1, leaf.y2, leaf.area, c.low_y, c.high_y);
          } else {
            c = nodes_[first_[level - 1] - first_[1] + child];
          }
          node.low_x[l] = lowest(c.low_x), node.low_y[l] = lowest(c.low_y);
          node.high_x[l] = highest(c.high_x), node.high_y[l] = highest(c.high_y);
        }
      }
    }
  }

  static uint32_t full(int64_t n) { return n >= W ? (uint64_t(1) << W) - 1 : (1u << n) - 1; }

  // Whether the box at this place is undecided, and so kept; then suppresses its overlaps.
  bool keep(uint32_t place) {
    const int64_t i = place / W;
    const int l = place % W;
    if ((masks_[i] >> l & 1) == 0) return false;
    clear(0, i, 1u << l);
    const Leaf& b = leaves_[i];
    const V zero{};
    Query q{zero + b.x1[l], zero + b.y1[l], zero + b.x2[l], zero + b.y2[l], zero + b.area[l]};
    if (top_ > 0) {
      core(q.x1, q.x2, q.area, q.low_x, q.high_x);
      core(q.y1, q.y2, q.area, q.low_y, q.high_y);
      descend(q, top_, 0);
    } else {
      for (int64_t j = i; j < first_[1]; ++j)
        if (masks_[j] != 0) test_leaf(q, j);
    }
    return true;
  }
};

// Below this many boxes it is faster to scan all leaves (350 spread boxes: 36 us scanned, 26 us by the tree,
// 350 clustered: 8 and 13; 128: 8 and 10, 3 and 9).
constexpr int64_t kTreeMinimum = 320;

// order [n]: the boxes of one class by falling score, as indices of boxes [.., 4]. Sets kept[box] = 0
// for those suppressed, as far as the one that makes `enough` kept.
template <class T>
void suppress(const T* boxes, const uint32_t* order, int64_t n, T limit, int64_t enough, uint8_t* kept) {
  auto items = std::make_unique_for_overwrite<Indexed<uint32_t>[]>(2 * n);
  int64_t m = 0;
  for (int64_t i = 0; i < n; ++i) {
    items[m].index = i;
    m += can_overlap(boxes + 4 * static_cast<int64_t>(order[i]));
  }
  if (m < 2) return;
  const bool tree = m >= kTreeMinimum;
  Indexed<uint32_t>* sorted = items.get();
  if (tree) sorted = sort_by_place(boxes, order, sorted, sorted + n, m);
  Candidates<T> candidates(boxes, order, sorted, m, limit, tree);
  auto place = std::make_unique_for_overwrite<uint32_t[]>(n);
  std::fill_n(place.get(), n, ~0u);
  for (int64_t i = 0; i < m; ++i) place[sorted[i].index] = i;
  for (int64_t i = 0; i < n && enough > 0; ++i) {
    if (place[i] == ~0u || candidates.keep(place[i]))
      --enough;
    else
      kept[order[i]] = 0;
  }
}
