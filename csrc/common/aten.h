// torch's own ops, called from the bindings: what the stable interface has no function for.
#pragma once
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

}  // namespace structops
