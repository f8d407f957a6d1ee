#include "common/cpu/top_k.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/cpu/radix_sort.h"
#include "common/tensor.h"

namespace structops::cpu {
namespace {

// A map's axes in the order of memory, innermost first, joined where they follow each other in memory and index alike:
// a channels_last map is one axis, a contiguous one has one for pixels and one for anchors.
struct Walk {
  struct Axis {
    int64_t size = 1, stride = 0, step = 0;  // step: of the index
  };
  Axis axis[3];

  template <class T>
  explicit Walk(const ScoreMap<T>& map) {
    Axis all[3];
    for (int64_t d = 2, step = 1; d >= 0; step *= map.size[d--]) all[d] = {map.size[d], map.stride[d], step};
    std::sort(all, all + 3, [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
    int axes = 0;
    for (const Axis& a : all) {
      if (a.size == 1) continue;
      Axis& last = axis[axes > 0 ? axes - 1 : 0];
      if (axes > 0 && a.stride == last.stride * last.size && a.step == last.step * last.size)
        last.size *= a.size;
      else
        axis[axes++] = a;
    }
    // Rows of three anchors would be all beginning and end: the longest axis is walked instead, and gathered.
    constexpr int64_t kShort = 32;
    if (axis[0].size < kShort)
      std::swap(axis[0], *std::max_element(axis, axis + 3, [](auto& a, auto& b) { return a.size < b.size; }));
  }
};

}  // namespace
}  // namespace structops::cpu

#define STRUCTOPS_ISA_FILE "common/cpu/top_k_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
int64_t top_k(const ScoreMap<T>& map, int64_t k, double above, int32_t* indices) {
  const int64_t wanted = std::min(k, map.size[0] * map.size[1] * map.size[2]);
  int64_t found = 0;
  if (wanted > 0) STRUCTOPS_ISA_DISPATCH(select<T>(map.data, Walk(map), wanted, above, indices, found));
  std::fill(indices + found, indices + k, -1);
  return found;
}

template int64_t top_k<Half>(const ScoreMap<Half>&, int64_t, double, int32_t*);
template int64_t top_k<BFloat16>(const ScoreMap<BFloat16>&, int64_t, double, int32_t*);
template int64_t top_k<float>(const ScoreMap<float>&, int64_t, double, int32_t*);
template int64_t top_k<double>(const ScoreMap<double>&, int64_t, double, int32_t*);

}  // namespace structops::cpu
