// The only place that knows torch's stable C++ interface: names, memory formats, argument checks.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/Dispatch.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>

#include "common/check.h"

namespace structops {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_floating(ScalarType t) {
  return t == ScalarType::Half || t == ScalarType::BFloat16 || t == ScalarType::Float || t == ScalarType::Double;
}
inline bool is_integer(ScalarType t) {
  return t == ScalarType::Byte || t == ScalarType::Char || t == ScalarType::Short || t == ScalarType::Int ||
         t == ScalarType::Long;
}

// The layout an op's output takes from a [N, C, H, W] input. The same rule in Python is
// structops._layout.memory_format; the two must agree, because fake kernels promise strides.
inline MemoryFormat memory_format_of(const Tensor& t) {
  if (t.dim() != 4 || t.is_contiguous() || t.size(1) == 1) return MemoryFormat::Contiguous;
  return t.stride(1) == 1 && t.stride(3) >= t.size(1) && t.stride(2) >= t.stride(3) ? MemoryFormat::ChannelsLast
                                                                                    : MemoryFormat::Contiguous;
}

inline Tensor empty_with_format(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef size,
                                MemoryFormat format) {
  return torch::stable::empty(size, like.scalar_type(), std::nullopt, like.device(), std::nullopt, format);
}

// torch's threads, as the CPU kernels take them (cpu::ParallelFor).
inline void parallel_for(int64_t n, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  torch::stable::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(begin, end, context); });
}

}  // namespace structops

// Runs the body with scalar_t bound to the C++ type of a floating tensor.
// clang-format off
#define STRUCTOPS_DISPATCH_FLOATING(TYPE, NAME, ...)                       \
  THO_DISPATCH_SWITCH(TYPE, NAME,                                          \
                      THO_DISPATCH_CASE(ScalarType::Half, __VA_ARGS__)     \
                      THO_DISPATCH_CASE(ScalarType::BFloat16, __VA_ARGS__) \
                      THO_DISPATCH_CASE(ScalarType::Float, __VA_ARGS__)    \
                      THO_DISPATCH_CASE(ScalarType::Double, __VA_ARGS__))
// clang-format on
