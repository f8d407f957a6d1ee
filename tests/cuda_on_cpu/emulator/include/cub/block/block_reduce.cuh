// cub::BlockReduce on the CPU: the same interface, and the same rule that a barrier must come
// before the storage is used again.
#pragma once
#include "cuda_on_cpu.h"

namespace cub {

template <class T, int X, int Algorithm = 0, int Y = 1, int Z = 1>
class BlockReduce {
 public:
  struct TempStorage {
    T values[X * Y * Z];
  };
  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  // The result is thread 0's; the others get all ones, a NaN.
  template <class Op>
  T Reduce(T value, Op op, int valid = X * Y * Z, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    const unsigned thread = cuda_on_cpu::current.thread;
    storage_.values[thread] = value;
    cuda_on_cpu::block_barrier(false, site);
    T total;
    std::memset(static_cast<void*>(&total), 0xff, sizeof total);
    if (thread != 0) return total;
    total = storage_.values[0];
    for (int i = 1; i < valid; ++i) total = op(total, storage_.values[i]);
    return total;
  }
  T Sum(T value, int valid = X * Y * Z, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return Reduce(value, [](T a, T b) { return static_cast<T>(a + b); }, valid, site);
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
