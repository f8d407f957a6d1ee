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
