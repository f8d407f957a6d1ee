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
#include <optional>
#include <string>
#include <vector>

#include "common/check.h"

namespace structops {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline bool is_floating(ScalarType t) {
  return t == ScalarType::Half || t == ScalarType::BFloat16 || t == ScalarType::Float || t == ScalarType::Double;
}
inline bool is_integer(ScalarType t) {
  return t == ScalarType::Byte || t == ScalarType::Char || t == ScalarType::Short || t == ScalarType::Int ||
         t == ScalarType::Long;
}

inline void check_floating(const char* op, const char* name, const Tensor& t) {
  STRUCTOPS_CHECK(is_floating(t.scalar_type()), op, ": ", name, " must be float16, bfloat16, float32 or float64, got ",
                  torch::headeronly::toString(t.scalar_type()));
}

// What is computed in: double where any of the tensors is, else float, which holds halves exactly.
inline ScalarType wide_type(std::initializer_list<ScalarType> types) {
  for (const ScalarType t : types)
    if (t == ScalarType::Double) return t;
  return ScalarType::Float;
}
template <class... Tensors>
ScalarType wide_type(const Tensor& first, const Tensors&... others) {
  return wide_type({first.scalar_type(), others.scalar_type()...});
}

// "[2, 3]", for messages.
inline std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int64_t d = 0; d < t.dim(); ++d) text += (d ? ", " : "") + std::to_string(t.size(d));
  return text + "]";
}

inline Tensor empty(torch::headeronly::IntHeaderOnlyArrayRef size, ScalarType type, const Tensor& like) {
  return torch::stable::empty(size, type, std::nullopt, like.device());
}

// Contiguous, of one type. Each conversion is a call through the dispatcher, microseconds that matter for ten boxes.
inline Tensor dense(const Tensor& t, ScalarType type) {
  const Tensor converted = t.scalar_type() == type ? t : torch::stable::to(t, type);
  return converted.is_contiguous() ? converted : torch::stable::contiguous(converted);
}
inline OptionalTensor dense(const OptionalTensor& t, ScalarType type) { return t ? dense(*t, type) : t; }

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
const T* data(const OptionalTensor& t) {
  return t ? data<T>(*t) : nullptr;
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
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
