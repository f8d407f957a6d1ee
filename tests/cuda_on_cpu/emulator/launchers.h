// The list of launchers of an emulated library, filled by tests/cuda_on_cpu/bindings/*.cpp:
//
//   EMULATE(nms_scan, structops::cuda::nms_scan)                          one function
//   EMULATE_FLOATING(roi_align_forward, structops::cuda::roi_align_forward<scalar_t>)   four: _float16, _bfloat16, ...
//
// Arguments come from Python as a flat list and are read in order: a number for a number, a buffer
// or None for a pointer, a parameter struct field by field. A stream is not in the list.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace cuda_on_cpu {

struct Buffer {
  void* data = nullptr;
  bool written = false;  // taken as a pointer to non-const
};
using Argument = std::variant<std::monostate, std::int64_t, double, Buffer*>;

// Stands for a field of unknown type in a braced list.
class Arguments;
struct AnyField {
  Arguments* arguments;
  template <class T>
  operator T() const;
};

template <class Struct, class... Fields>
consteval std::size_t field_count() {
  if constexpr (requires { Struct{std::declval<Fields>()..., std::declval<AnyField>()}; }) {
    return field_count<Struct, Fields..., AnyField>();
  } else {
    return sizeof...(Fields);
  }
}

class Arguments {
 public:
  explicit Arguments(std::vector<Argument> all) : all_(std::move(all)) {}

  template <class T>
  T take() {
    if constexpr (std::is_same_v<T, cudaStream_t>) {
      return nullptr;
    } else if constexpr (std::is_pointer_v<T>) {
      const Argument& a = next();
      if (std::holds_alternative<std::monostate>(a)) return nullptr;
      if (!std::holds_alternative<Buffer*>(a)) throw std::invalid_argument(place() + " must be a buffer or None");
      Buffer* buffer = std::get<Buffer*>(a);
      buffer->written |= !std::is_const_v<std::remove_pointer_t<T>>;
      return static_cast<T>(buffer->data);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      const Argument& a = next();
      if (std::holds_alternative<std::int64_t>(a)) return static_cast<T>(std::get<std::int64_t>(a));
      if constexpr (std::is_floating_point_v<T>) {
        if (std::holds_alternative<double>(a)) return static_cast<T>(std::get<double>(a));
      }
      throw std::invalid_argument(place() + " must be a number of the parameter's kind");
    } else {
      return make<T>(std::make_index_sequence<field_count<T>()>());
    }
  }
  void finish() const {
    if (next_ != all_.size())
      throw std::invalid_argument("launcher takes " + std::to_string(next_) + " arguments, got " +
                                  std::to_string(all_.size()));
  }

 private:
  const Argument& next() {
    if (next_ == all_.size())
      throw std::invalid_argument("launcher takes more than " + std::to_string(next_) + " arguments");
    return all_[next_++];
  }
  std::string place() const { return "argument " + std::to_string(next_ - 1); }
  template <class Struct, std::size_t... i>
  Struct make(std::index_sequence<i...>) {
    return Struct{(static_cast<void>(i), AnyField{this})...};
  }

  std::vector<Argument> all_;
  std::size_t next_ = 0;
};

template <class T>
AnyField::operator T() const {
  return arguments->take<T>();
}

struct Outcome {
  cudaError_t status = cudaSuccess;
  std::int64_t value = 0;  // of a function that returns a number
};
using Launcher = std::function<Outcome(Arguments&)>;

// Through a function, so that files may register in any order of initialisation.
std::map<std::string, Launcher>& launchers();

template <class Result, class... Parameters>
Launcher make_launcher(Result (*function)(Parameters...)) {
  return [function](Arguments& arguments) {
    // Braces: evaluated left to right.
    std::tuple<std::remove_cvref_t<Parameters>...> values{arguments.take<std::remove_cvref_t<Parameters>>()...};
    arguments.finish();
    Outcome outcome;
    if constexpr (std::is_same_v<Result, cudaError_t>) {
      outcome.status = std::apply(function, values);
    } else if constexpr (std::is_void_v<Result>) {
      std::apply(function, values);
      outcome.status = cudaGetLastError();
    } else {
      outcome.value = static_cast<std::int64_t>(std::apply(function, values));
    }
    return outcome;
  };
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_REGISTER(unique, name, ...) \
  static const bool unique = cuda_on_cpu::launchers().emplace(name, cuda_on_cpu::make_launcher(__VA_ARGS__)).second;
#define CUDA_ON_CPU_REGISTER_TYPE(name, type, suffix, ...)           \
  namespace emulated_##name##_##suffix {                             \
    using scalar_t = type;                                           \
    CUDA_ON_CPU_REGISTER(registered, #name "_" #suffix, __VA_ARGS__) \
  }
#define EMULATE(name, ...) CUDA_ON_CPU_REGISTER(emulated_##name, #name, __VA_ARGS__)
#define EMULATE_FLOATING(name, ...)                                     \
  CUDA_ON_CPU_REGISTER_TYPE(name, __half, float16, __VA_ARGS__)         \
  CUDA_ON_CPU_REGISTER_TYPE(name, __nv_bfloat16, bfloat16, __VA_ARGS__) \
  CUDA_ON_CPU_REGISTER_TYPE(name, float, float32, __VA_ARGS__)          \
  CUDA_ON_CPU_REGISTER_TYPE(name, double, float64, __VA_ARGS__)
