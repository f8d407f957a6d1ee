// Stable sort of (key, index) pairs by least-significant-digit radix passes, linear in time and memory.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace structops::cpu {

template <class Key>
struct Indexed {
  Key key;
  uint32_t index;
};

// Ascending keys: the larger score first, -0 equal to +0, NaN last.
template <class T>
inline auto descending_key(T score) {
  using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  if (score != score) return ~Key(0);
  constexpr Key sign = Key(1) << (sizeof(Key) * 8 - 1);
  const Key bits = std::bit_cast<Key>(score + T(0));
  return static_cast<Key>(bits & sign ? bits : ~bits & ~sign);
}

// Sorts items [n] by key, equal keys in the order given; the result is the returned one of the two buffers.
template <class Key>
Indexed<Key>* radix_sort(Indexed<Key>* items, Indexed<Key>* spare, int64_t n) {
  if (n <= 48) {  // an insertion sort, here as fast as the passes with their counters
    for (int64_t i = 1; i < n; ++i) {
      const Indexed<Key> item = items[i];
      int64_t j = i;
      for (; j > 0 && items[j - 1].key > item.key; --j) items[j] = items[j - 1];
      items[j] = item;
    }
    return items;
  }
  // The digits share out the range that occurs: 1 pass for 80 classes, 3 for the 27 bits of scores in 0..1.
  Key low = items[0].key, high = low;
  for (int64_t i = 1; i < n; ++i) low = std::min(low, items[i].key), high = std::max(high, items[i].key);
  const int bits = std::bit_width(static_cast<Key>(high - low));
  if (bits == 0) return items;
  const int widest = n < 4096 ? 9 : 11, passes = (bits + widest - 1) / widest, width = (bits + passes - 1) / passes;
  const Key mask = (Key(1) << width) - 1;
  uint32_t counters[2][1 << 11];
  std::fill_n(counters[0], mask + 1, 0);
  for (int64_t i = 0; i < n; ++i) ++counters[0][(items[i].key - low) & mask];
  for (int pass = 0; pass < passes; ++pass) {
    // The next digit is counted on the way: that hides in the latency of this one's counters where
    // neighbours share a digit (the exponent of a score).
    uint32_t *begin = counters[pass & 1], *next = counters[~pass & 1];
    const int shift = pass * width, next_shift = pass + 1 < passes ? shift + width : 0;
    std::fill_n(next, mask + 1, 0);
    uint32_t sum = 0;
    for (Key d = 0; d <= mask; ++d) sum += std::exchange(begin[d], sum);
    for (int64_t i = 0; i < n; ++i) {
      const Indexed<Key> item = items[i];
      const Key key = item.key - low;
      ++next[key >> next_shift & mask];
      spare[begin[key >> shift & mask]++] = item;
    }
    std::swap(items, spare);
  }
  return items;
}

}  // namespace structops::cpu
