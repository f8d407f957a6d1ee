// Selection of the best k scores, compiled once per instruction set (foreach_isa.h).
//
// Two passes over the map. The first takes maxima of groups of scores: at least k scores reach the k-th largest of
// those, so only scores that reach it need a look. The second collects them, some 1.5 k of 200,000, which are sorted.
// On maps where more pass, what has been collected is cut back to its best k, and what is worse than those turned away.

#include "common/cpu/vec.h"

// Calls visit(scores, n, first, step) for contiguous runs of the map; the i-th score of a run has index first + i *
// step.
template <class T, class Visit>
void for_each_run(const T* data, const ScoreWalk& walk, const Visit& visit) {
  constexpr int64_t kRun = 4096;
  const auto& [row, middle, outer] = walk.axis;
  T gathered[kRun];
  for (int64_t o = 0; o < outer.size; ++o)
    for (int64_t m = 0; m < middle.size; ++m)
      for (int64_t begin = 0; begin < row.size; begin += kRun) {
        const int64_t n = std::min(kRun, row.size - begin);
        const T* scores = data + o * outer.stride + m * middle.stride + begin * row.stride;
        if (row.stride != 1) {
          for (int64_t i = 0; i < n; ++i) gathered[i] = scores[i * row.stride];
          scores = gathered;
        }
        visit(scores, n, o * outer.step + m * middle.step + begin * row.step, row.step);
      }
}

// A bar that at least k scores reach; -infinity where none is found. `count` scores in all.
template <class T>
acc_t<T> lower_bound_of_kth(const T* data, const ScoreWalk& walk, int64_t count, int64_t k) {
  using A = acc_t<T>;
  constexpr int64_t W = kLanes<A>;
  constexpr A kLowest = -std::numeric_limits<A>::infinity();
  // 2 k groups: at the median of their maxima, half of them hold a score that passes, few of them more than one.
  const int64_t group = std::max<int64_t>(1, count / (2 * k));
  std::vector<A> maxima;
  maxima.reserve(static_cast<size_t>(count / group + 64 * W));
  for_each_run(data, walk, [&](const T* scores, int64_t n, int64_t, int64_t) {
    for (int64_t i = 0; i + W <= n;) {
      const int64_t end = std::min(n, i + group * W);
      Vec<A> best = broadcast(kLowest);
      for (; i + W <= end; i += W) best = max(load(scores + i), best);  // where a score is NaN, best
      maxima.resize(maxima.size() + W);
      store(maxima.data() + maxima.size() - W, best);
    }
  });
  if (static_cast<int64_t>(maxima.size()) < k) return kLowest;
  std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<A>());
  return maxima[static_cast<size_t>(k - 1)];
}

// The best k of the scores offered so far, among others that have not been cut yet.
template <class A>
class Collected {
  using Key = decltype(descending_key(A()));
  using Item = Indexed<Key>;

  const int64_t k_, room_;
  int64_t size_ = 0;
  std::unique_ptr<Item[]> memory_;
  Item *items_, *spare_;
  bool full_ = false;  // worst_ is the k-th best so far
  Item worst_{};

  static bool before(const Item& a, const Item& b) { return a.key != b.key ? a.key < b.key : a.index < b.index; }

 public:
  explicit Collected(int64_t k)
      : k_(k), room_(4 * k + 4096), memory_(std::make_unique_for_overwrite<Item[]>(2 * room_)) {
    items_ = memory_.get();
    spare_ = items_ + room_;
  }

  void offer(A score, int64_t index) {
    const Item item{descending_key(score), static_cast<uint32_t>(index)};
    if (full_ && !before(item, worst_)) return;
    items_[size_++] = item;
    if (size_ == room_) cut();
  }

  // Leaves the best k, in order.
  void cut() {
    Item* sorted = radix_sort(items_, spare_, size_);
    if (sorted != items_) std::swap(items_, spare_);
    for (int64_t i = 0, end; i < size_; i = end) {  // scores are offered in the order of memory, not of the index
      for (end = i + 1; end < size_ && items_[end].key == items_[i].key;) ++end;
      if (end - i > 1) std::sort(items_ + i, items_ + end, before);
    }
    size_ = std::min(size_, k_);
    full_ = size_ == k_;
    if (full_) worst_ = items_[size_ - 1];
  }

  int64_t size() const { return size_; }
  uint32_t index(int64_t i) const { return items_[i].index; }
};

// Offers every score that is at least `least`; where that is NaN, every score.
template <class T>
void collect(const T* data, const ScoreWalk& walk, acc_t<T> least, Collected<acc_t<T>>& collected) {
  using A = acc_t<T>;
  constexpr int64_t W = kLanes<A>, kUnroll = 4;
  const Vec<A> bar = broadcast(least);
  const bool all = least != least;
  for_each_run(data, walk, [&](const T* scores, int64_t n, int64_t first, int64_t step) {
    int64_t i = 0;
    for (; !all && i + kUnroll * W <= n; i += kUnroll * W) {
      uint32_t lanes[kUnroll];
      for (int64_t u = 0; u < kUnroll; ++u) lanes[u] = bits(less_equal(bar, load(scores + i + u * W)));
      if ((lanes[0] | lanes[1] | lanes[2] | lanes[3]) == 0) continue;
      for (int64_t u = 0; u < kUnroll; ++u)
        for (uint32_t left = lanes[u]; left != 0; left &= left - 1) {
          const int64_t at = i + u * W + std::countr_zero(left);
          collected.offer(static_cast<A>(scores[at]), first + at * step);
        }
    }
    for (; i < n; ++i) {
      const A score = static_cast<A>(scores[i]);
      if (all || score >= least) collected.offer(score, first + i * step);
    }
  });
}

template <class T>
void select(const T* data, const ScoreWalk& walk, int64_t k, double above, int32_t* indices, int64_t& found) {
  using A = acc_t<T>;
  constexpr A kInfinity = std::numeric_limits<A>::infinity(), kAll = std::numeric_limits<A>::quiet_NaN();
  const int64_t count = walk.axis[0].size * walk.axis[1].size * walk.axis[2].size;
  A floor = kAll;  // of what is wanted, inclusive
  if (above == above) {
    const A rounded = static_cast<A>(above);
    floor = rounded > above ? rounded : std::nextafter(rounded, kInfinity);
    if (above == static_cast<double>(kInfinity)) return;
  }
  // Below 8 k, most scores would pass the bar. With -infinity for a bar, so may NaN, which are not among the maxima.
  A least = count >= 8 * k ? lower_bound_of_kth(data, walk, count, k) : -kInfinity;
  least = floor > least ? floor : least == -kInfinity ? floor : least;
  Collected<A> collected(k);
  collect(data, walk, least, collected);
  collected.cut();
  found = collected.size();
  for (int64_t i = 0; i < found; ++i) indices[i] = static_cast<int32_t>(collected.index(i));
}
