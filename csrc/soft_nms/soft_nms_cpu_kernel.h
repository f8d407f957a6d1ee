// Soft suppression among the boxes of one class, compiled once per instruction set (foreach_isa.h).
//
// The boxes lie in leaves of one vector's lanes, by place. A step takes the best of the leaves' best scores, and visits
// only the leaves whose bounds the box that was taken meets: of 5000 boxes spread over an image 40 of 313, of 5000 on
// 160 objects 28.

#include "common/cpu/vec.h"

template <class T>
class SoftCandidates {
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;
  typedef FloatBits<T> B __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
  struct Leaf {
    V x1, y1, x2, y2, area, score;
  };
  struct Group {  // of one leaf in each lane
    V low_x, low_y, high_x, high_y, best;
  };

  const SoftNmsRule<T>& rule_;
  int64_t n_, leaf_count_, group_count_;
  const Indexed<uint32_t>* items_;
  std::unique_ptr<Leaf[]> leaves_;
  std::unique_ptr<Group[]> groups_;

  static T highest(V v) {
    T out = v[0];
    for (int l = 1; l < W; ++l) out = v[l] > out ? v[l] : out;
    return out;
  }

  // Lowers the scores in a leaf by its boxes' overlap with one box, broadcast.
  void lower(const V& x1, const V& y1, const V& x2, const V& y2, const V& area, int64_t at) {
    Leaf& b = leaves_[at];
    const V zero{};
    const V inter = max(min(x2, b.x2) - max(x1, b.x1), zero) * max(min(y2, b.y2) - max(y1, b.y1), zero);
    const V iou = inter / (area + b.area - inter);
    b.score = soften<T, V, B>(rule_, iou, b.score);
    groups_[at / W].best[at % W] = highest(b.score);
  }

 public:
  // items [n]: index of each box in order [...] -> boxes [..., 4] and scores [...], in the order of the leaves.
  SoftCandidates(const T* boxes, const T* scores, const uint32_t* order, const Indexed<uint32_t>* items, int64_t n,
                 const SoftNmsRule<T>& rule)
      : rule_(rule), n_(n), leaf_count_((n + W - 1) / W), group_count_((leaf_count_ + W - 1) / W), items_(items) {
    leaves_ = std::make_unique_for_overwrite<Leaf[]>(leaf_count_);
    groups_ = std::make_unique_for_overwrite<Group[]>(group_count_);
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const V nowhere = V{} + infinity;
    std::fill_n(groups_.get(), group_count_, Group{nowhere, nowhere, -nowhere, -nowhere, V{}});
    std::fill_n(leaves_.get(), leaf_count_, Leaf{nowhere, nowhere, -nowhere, -nowhere, V{}, V{}});
    for (int64_t i = 0; i < n; ++i) {
      const int64_t box = order[items[i].index];
      const T* b = boxes + 4 * box;
      Leaf& leaf = leaves_[i / W];
      Group& group = groups_[i / W / W];
      const int l = i % W, g = i / W % W;
      leaf.score[l] = scores[box];
      group.best[g] = std::max(T(group.best[g]), scores[box]);
      if (!can_overlap(b)) continue;  // stays nowhere
      leaf.x1[l] = b[0], leaf.y1[l] = b[1], leaf.x2[l] = b[2], leaf.y2[l] = b[3];
      leaf.area[l] = (b[2] - b[0]) * (b[3] - b[1]);
      group.low_x[g] = std::min(T(group.low_x[g]), b[0]), group.low_y[g] = std::min(T(group.low_y[g]), b[1]);
      group.high_x[g] = std::max(T(group.high_x[g]), b[2]), group.high_y[g] = std::max(T(group.high_y[g]), b[3]);
    }
  }

  // The best score, or one not above the limit where none is left; `place` is the box's, the lower index of equals.
  T best(int64_t& place) const {
    V top = groups_[0].best;
    for (int64_t i = 1; i < group_count_; ++i) top = max(top, groups_[i].best);
    const T score = highest(top);
    if (!(score > rule_.score_limit)) return score;
    const V all = V{} + score;
    uint32_t lowest = ~0u;
    for (int64_t i = 0; i < group_count_; ++i)
      for (uint32_t of_group = bits(less_equal(all, groups_[i].best)); of_group != 0; of_group &= of_group - 1) {
        const int64_t leaf = i * W + std::countr_zero(of_group);
        for (uint32_t of_leaf = bits(less_equal(all, leaves_[leaf].score)); of_leaf != 0; of_leaf &= of_leaf - 1) {
          const int64_t at = leaf * W + std::countr_zero(of_leaf);
          if (items_[at].index <= lowest) lowest = items_[at].index, place = at;
        }
      }
    return score;
  }

  void take(int64_t place) {
    const int64_t own = place / W;
    const int l = place % W;
    Leaf& b = leaves_[own];
    const V zero{}, x1 = zero + b.x1[l], y1 = zero + b.y1[l], x2 = zero + b.x2[l], y2 = zero + b.y2[l];
    const V area = zero + b.area[l], limit = zero + rule_.score_limit;
    b.score[l] = 0;
    groups_[own / W].best[own % W] = highest(b.score);
    for (int64_t i = 0; i < group_count_; ++i) {
      const Group& g = groups_[i];
      uint32_t met = bits(less_equal(g.low_x, x2) & less_equal(g.low_y, y2) & less_equal(x1, g.high_x) &
                          less_equal(y1, g.high_y)) &
                     ~bits(less_equal(g.best, limit));
      for (; met != 0; met &= met - 1) lower(x1, y1, x2, y2, area, i * W + std::countr_zero(met));
    }
  }
};

// order [n]: the boxes of one class by index. result[box] becomes the score with which a box is taken, of the best
// `most` of them; the others' are left as they are.
template <class T>
void soften_class(const T* boxes, const T* scores, const uint32_t* order, int64_t n, const SoftNmsRule<T>& rule,
                  int64_t most, T* result) {
  auto items = std::make_unique_for_overwrite<Indexed<uint32_t>[]>(2 * n);
  int64_t m = 0;
  for (int64_t i = 0; i < n; ++i) {
    items[m].index = static_cast<uint32_t>(i);
    m += scores[order[i]] > rule.score_limit;
  }
  if (m == 0) return;
  const Indexed<uint32_t>* placed = sort_by_place(boxes, order, items.get(), items.get() + m, m);
  SoftCandidates<T> candidates(boxes, scores, order, placed, m, rule);
  for (int64_t taken = 0; taken < most; ++taken) {
    int64_t place = 0;
    const T score = candidates.best(place);
    if (!(score > rule.score_limit)) break;
    result[order[placed[place].index]] = score;
    candidates.take(place);
  }
}
