// Matrix NMS among the boxes of one class, compiled once per instruction set (foreach_isa.h).
//
// The boxes lie in leaves of one vector's lanes, by place. All pairs of a leaf's boxes with those of another are looked
// at only where the leaves' bounds meet: of 5000 boxes spread over an image one pair of leaves in four, of 5000 on 160
// objects one in seven. Twice: first each box's worst overlap with a better one, then what the better ones say with
// theirs.

#include "common/cpu/vec.h"

template <class T>
class MatrixCandidates {
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;
  typedef FloatBits<T> Ranks __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
  struct Leaf {
    V x1, y1, x2, y2, area, worst;
    Ranks rank;
  };
  struct Group {  // bounds of one leaf in each lane
    V low_x, low_y, high_x, high_y;
  };

  const MatrixNmsRule<T>& rule_;
  int64_t leaf_count_, group_count_;
  std::unique_ptr<Leaf[]> leaves_;
  std::unique_ptr<Group[]> groups_;

  static T extreme(V v, bool high) {
    T out = v[0];
    for (int l = 1; l < W; ++l) out = (high ? v[l] > out : v[l] < out) ? v[l] : out;
    return out;
  }

  // use(iou, lane l of leaf i): the overlaps of the boxes of leaf j with every better box that any of them meets; 0
  // where that one is not better.
  template <class Use>
  void better_ones(int64_t j, const Use& use) const {
    const Leaf& a = leaves_[j];
    const V zero{};
    const V low_x = zero + extreme(a.x1, false), low_y = zero + extreme(a.y1, false);
    const V high_x = zero + extreme(a.x2, true), high_y = zero + extreme(a.y2, true);
    for (int64_t group = 0; group < group_count_; ++group) {
      const Group& g = groups_[group];
      uint32_t met = bits(less_equal(g.low_x, high_x) & less_equal(g.low_y, high_y) & less_equal(low_x, g.high_x) &
                          less_equal(low_y, g.high_y));
      for (; met != 0; met &= met - 1) {
        const Leaf& b = leaves_[group * W + std::countr_zero(met)];
        for (int l = 0; l < W; ++l) {
          const V width = min(zero + b.x2[l], a.x2) - max(zero + b.x1[l], a.x1);
          const V height = min(zero + b.y2[l], a.y2) - max(zero + b.y1[l], a.y1);
          const V inter = max(width, zero) * max(height, zero);
          if (bits(less_equal(inter, zero)) == (uint64_t(1) << W) - 1) continue;
          const V iou = counted<T>(inter / ((zero + b.area[l]) + a.area - inter));
          use(Ranks{} + b.rank[l] < a.rank ? iou : zero, b, l);
        }
      }
    }
  }

 public:
  // items [n]: rank of each box, an index of order [...] -> boxes [..., 4], in the order of the leaves.
  MatrixCandidates(const T* boxes, const uint32_t* order, const Indexed<uint32_t>* items, int64_t n,
                   const MatrixNmsRule<T>& rule)
      : rule_(rule), leaf_count_((n + W - 1) / W), group_count_((leaf_count_ + W - 1) / W) {
    leaves_ = std::make_unique_for_overwrite<Leaf[]>(leaf_count_);
    groups_ = std::make_unique_for_overwrite<Group[]>(group_count_);
    const V nowhere = V{} + std::numeric_limits<T>::infinity();
    std::fill_n(groups_.get(), group_count_, Group{nowhere, nowhere, -nowhere, -nowhere});
    for (int64_t i = 0; i < leaf_count_ * W; ++i) {  // the last leaf is filled up with copies of the last box
      const uint32_t rank = items[std::min(i, n - 1)].index;
      const T* b = boxes + 4 * static_cast<int64_t>(order[rank]);
      Leaf& leaf = leaves_[i / W];
      const int l = i % W, g = i / W % W;
      leaf.x1[l] = b[0], leaf.y1[l] = b[1], leaf.x2[l] = b[2], leaf.y2[l] = b[3], leaf.rank[l] = rank;
      Group& group = groups_[i / W / W];
      group.low_x[g] = std::min(T(group.low_x[g]), b[0]), group.low_y[g] = std::min(T(group.low_y[g]), b[1]);
      group.high_x[g] = std::max(T(group.high_x[g]), b[2]), group.high_y[g] = std::max(T(group.high_y[g]), b[3]);
    }
    for (int64_t i = 0; i < leaf_count_; ++i)
      leaves_[i].area = (leaves_[i].x2 - leaves_[i].x1) * (leaves_[i].y2 - leaves_[i].y1);
  }

  int64_t leaves() const { return leaf_count_; }

  void find_worst(int64_t leaf) {
    V worst{};
    better_ones(leaf, [&](V iou, const Leaf&, int) { worst = max(iou, worst); });
    leaves_[leaf].worst = worst;
  }

  // After find_worst of every leaf. weights [...] by box.
  void find_weights(int64_t leaf, const uint32_t* order, T* weights) const {
    V least = V{} + rule_.none();
    better_ones(leaf, [&](V iou, const Leaf& b, int l) { least = min(rule_.lowering(V{} + b.worst[l], iou), least); });
    for (int l = 0; l < W; ++l) weights[order[leaves_[leaf].rank[l]]] = rule_.weight(least[l]);
  }
};

// order [n]: the boxes of one class by falling score. weights[box] is set where boxes can overlap others.
template <class T>
void weigh_class(const T* boxes, const uint32_t* order, int64_t n, const MatrixNmsRule<T>& rule, T* weights,
                 ParallelFor parallel_for) {
  auto items = std::make_unique_for_overwrite<Indexed<uint32_t>[]>(2 * n);
  int64_t m = 0;
  for (int64_t i = 0; i < n; ++i) {
    items[m].index = static_cast<uint32_t>(i);
    m += can_overlap(boxes + 4 * static_cast<int64_t>(order[i]));
  }
  if (m < 2) return;
  const Indexed<uint32_t>* placed = sort_by_place(boxes, order, items.get(), items.get() + m, m);
  MatrixCandidates<T> candidates(boxes, order, placed, m, rule);
  const auto over_leaves = [&](const auto& visit) {
    // A pair of leaves that meet takes some 100 ns, and one in four does.
    const int64_t leaves = candidates.leaves();
    share(parallel_for, std::min(leaves, workers_for(25.0 * leaves * leaves)), leaves, 8, [&](ItemQueue& queue) {
      for (int64_t i, end; queue.take(i, end);)
        for (; i < end; ++i) visit(i);
    });
  };
  over_leaves([&](int64_t leaf) { candidates.find_worst(leaf); });
  over_leaves([&](int64_t leaf) { candidates.find_weights(leaf, order, weights); });
}
