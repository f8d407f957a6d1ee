// torch's own ops, called from the bindings: what the stable interface has no function for.
#pragma once
#include <algorithm>
#include <array>

#include "common/tensor.h"

namespace structops {

// An op that returns one tensor; every argument of its schema must be given.
template <class... Arguments>
Tensor call_aten(const char* op, const char* overload, const Tensor& self, const Arguments&... arguments) {
  std::array<StableIValue, 1 + sizeof...(Arguments)> stack{torch::stable::detail::from(self),
                                                           torch::stable::detail::from(arguments)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// An op in place on a dense tensor, some elements at a time.
inline void call_aten_in_parts(const char* op, const Tensor& values, int64_t part) {
  const int64_t count = values.numel();
  Tensor flat = torch::stable::reshape(values, {count});
  for (int64_t first = 0; first < count; first += part)
    call_aten(op, "", torch::stable::narrow(flat, 0, first, std::min(part, count - first)));
}

// torch's sigmoid on CPU, in place: it rounds the last few elements of a tensor, or of a thread's share, otherwise than
// those before, which its vectors take. In parts below the 32768 elements that torch divides among threads, whole
// vectors each, nothing depends on the number of threads.
inline void sigmoid_in_parts(const Tensor& values) { call_aten_in_parts("aten::sigmoid_", values, 16384); }

}  // namespace structops
