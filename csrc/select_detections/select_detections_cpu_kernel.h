// Compiled once per instruction set (foreach_isa.h).

#include "common/cpu/vec.h"

// Appends first + i, rising, for values [n] that are `least` or more. Few are: what matters is to be done with the
// rest.
template <class S>
void append_at_least(const S* values, int64_t n, acc_t<S> least, int64_t first, std::vector<int64_t>& found) {
  constexpr int64_t W = kLanes<acc_t<S>>;
  const Vec<acc_t<S>> bound = broadcast(least);
  int64_t i = 0;
  for (; i + W <= n; i += W)
    for (uint32_t mask = bits(less_equal(bound, load(values + i))); mask != 0; mask &= mask - 1)
      found.push_back(first + i + std::countr_zero(mask));
  for (; i < n; ++i)
    if (static_cast<acc_t<S>>(values[i]) >= least) found.push_back(first + i);
}

// Sets `met` if the IoU of the box with a kept one of its class exceeds the limit, 0 <= limit < 1.
template <class T>
void meet(const KeptBoxes<T>& kept, const BoxOf<T>& box, T area, T label, T limit, bool& met) {
  const Vec<T> zero{}, bound = broadcast(limit), mine = broadcast(label);
  for (int64_t i = 0; i < kept.count && !met; i += kLanes<T>) {
    const Vec<T> theirs = load(kept.label + i);
    uint32_t mask = bits(less_equal(theirs, mine)) & bits(less_equal(mine, theirs));
    if (mask == 0) continue;
    const Vec<T> width = min(broadcast(box.x2), load(kept.x2 + i)) - max(broadcast(box.x1), load(kept.x1 + i));
    const Vec<T> height = min(broadcast(box.y2), load(kept.y2 + i)) - max(broadcast(box.y1), load(kept.y1 + i));
    const Vec<T> inter = max(width, zero) * max(height, zero);
    const Vec<T> joint = load(kept.area + i) + broadcast(area) - inter;
    // The division without dividing, as in nms/nms_cpu_kernel.h. Few get past.
    mask &= bits(less_equal(bound * joint, inter));
    if (mask != 0) met = (mask & ~bits(less_equal(inter / joint, bound))) != 0;
  }
}
