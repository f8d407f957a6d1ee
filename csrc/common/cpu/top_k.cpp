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

#define STRUCTOPS_ISA_FILE "common/cpu/top_k_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
int64_t top_k(const T* scores, const ScoreShape& shape, int64_t k, double above, int32_t* indices) {
  const int64_t wanted = std::min(k, shape.count());
  int64_t found = 0;
  if (wanted > 0) STRUCTOPS_ISA_DISPATCH(select<T>(scores, ScoreWalk(shape), wanted, above, indices, found));
  std::fill(indices + found, indices + k, -1);
  return found;
}

template int64_t top_k<Half>(const Half*, const ScoreShape&, int64_t, double, int32_t*);
template int64_t top_k<BFloat16>(const BFloat16*, const ScoreShape&, int64_t, double, int32_t*);
template int64_t top_k<float>(const float*, const ScoreShape&, int64_t, double, int32_t*);
template int64_t top_k<double>(const double*, const ScoreShape&, int64_t, double, int32_t*);

}  // namespace structops::cpu
