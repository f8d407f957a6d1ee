// Atomics: with one OS thread a plain read, change, write. Types are those that CUDA overloads.
#pragma once
#include "cuda_on_cpu/runtime.h"
#include "cuda_on_cpu/warp.h"

namespace cuda_on_cpu {

// Kept out of the race checker's instrumentation, which would take it for an ordinary access.
template <class T, class Change>
__attribute__((no_sanitize("thread"), noinline)) T read_modify_write(T* address, Change change) {
  note_atomic(address, sizeof(T));
  const T old = *address;
  *address = change(old);
  return old;
}

template <class T>
concept AtomicInteger = OneOf<T, int, unsigned, unsigned long long>;
template <class T>
concept AtomicOrdered = AtomicInteger<T> || std::same_as<T, long long>;
template <class T>
concept AtomicAddable = AtomicInteger<T> || OneOf<T, float, double, __half, __half2, __nv_bfloat16, __nv_bfloat162>;

}  // namespace cuda_on_cpu

template <cuda_on_cpu::AtomicAddable T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return static_cast<T>(old + value); });
}
template <cuda_on_cpu::OneOf<int, unsigned> T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return static_cast<T>(old - value); });
}
template <cuda_on_cpu::AtomicOrdered T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return value < old ? value : old; });
}
template <cuda_on_cpu::AtomicOrdered T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return value > old ? value : old; });
}
template <cuda_on_cpu::AtomicInteger T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return static_cast<T>(old & value); });
}
template <cuda_on_cpu::AtomicInteger T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return static_cast<T>(old | value); });
}
template <cuda_on_cpu::AtomicInteger T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return static_cast<T>(old ^ value); });
}
template <class T>
  requires cuda_on_cpu::AtomicInteger<T> || std::same_as<T, float>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T) { return value; });
}
template <class T>
  requires cuda_on_cpu::AtomicInteger<T> || std::same_as<T, unsigned short>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [&](T old) { return old == expected ? value : old; });
}
