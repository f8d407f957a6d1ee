// What the CPU and the CUDA binding of roi_pool share beyond common/rois.h.
#pragma once
#include "common/tensor.h"
#include "roi_pool/roi_pool.h"

namespace structops {

inline void check_plane(const char* op, int64_t height, int64_t width) {
  STRUCTOPS_CHECK(height == 0 || width <= 0x7fffffff / height, op,
                  ": input must have fewer than 2^31 pixels a map (argmax is int32), got ", height, " x ", width);
}

// argmax [K, C, PH, PW] of an output whose gradient is grad.
inline void check_argmax(const char* op, const Tensor& argmax, const Tensor& grad) {
  STRUCTOPS_CHECK(argmax.scalar_type() == ScalarType::Int, op, ": argmax must be int32, got ",
                  torch::headeronly::toString(argmax.scalar_type()));
  bool same = argmax.dim() == 4;
  for (int64_t i = 0; same && i < 4; ++i) same = argmax.size(i) == grad.size(i);
  STRUCTOPS_CHECK(same, op, ": argmax must be [", grad.size(0), ", ", grad.size(1), ", ", grad.size(2), ", ",
                  grad.size(3), "]");
  STRUCTOPS_CHECK(argmax.device() == grad.device(), op, ": argmax must be on the same device as grad");
}

// [K, C, PH, PW], or [0] when it is not wanted.
inline Tensor empty_argmax(const Tensor& input, const RoiPoolParams& p, bool wanted, MemoryFormat format) {
  if (!wanted) return torch::stable::empty({0}, ScalarType::Int, std::nullopt, input.device());
  return torch::stable::empty({p.rois, p.channels, p.pooled_height, p.pooled_width}, ScalarType::Int, std::nullopt,
                              input.device(), std::nullopt, format);
}

}  // namespace structops
