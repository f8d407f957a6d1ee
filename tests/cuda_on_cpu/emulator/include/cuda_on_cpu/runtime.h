// What kernel code sees of the runtime: where it is, barriers, warp rendezvous, launching.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cuda_on_cpu {

// The CUDA thread that is running now. One OS thread runs them all; the scheduler rewrites this at
// every switch.
struct Current {
  uint3 thread_index{}, block_index{};
  dim3 block_dim{}, grid_dim{};
  unsigned thread = 0;  // linear index in the block
  unsigned lane = 0, warp = 0;
};
extern Current current;

// A line of kernel code, for reports. Taken as a default argument, it is the caller's line.
struct Site {
  const char* file = nullptr;
  int line = 0;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Site& o) const { return line == o.line && std::strcmp(file, o.file) == 0; }
};

enum class WarpOp {
  shuffle_index,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  match_any,
  reduce,
  sync,
  matrix
};

// Called once for a whole group of lanes, by the last to arrive. payload[lane] is what that lane
// passed; valid where the bit is set in `present`.
using Combine = void (*)(void** payload, std::uint32_t present, int argument);

// Waits for every live lane in `mask`, then runs `combine`. `argument` must agree among the lanes.
void warp_collective(std::uint32_t mask, WarpOp op, int argument, void* payload, Combine combine, Site site);

// Waits for every live thread of the block; returns how many passed a true predicate.
int block_barrier(bool predicate, Site site);

// Ends the launch with this report.
[[noreturn]] void kernel_error(const char* what, Site site);

// Tells the race checker of an atomic access, which its instrumentation does not see.
void note_atomic(const volatile void* address, std::size_t bytes);

void* dynamic_smem();

using KernelCall = void (*)(void* context);
cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, KernelCall call, void* context,
                     const void* kernel);

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t,
                   Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<std::remove_cv_t<Parameters>> && ...),
                "the driver copies parameters as bytes");
  static_assert((0 + ... + sizeof(Parameters)) <= 4096, "more than 4 KiB of kernel parameters");
  struct Context {
    void (*kernel)(Parameters...);
    std::tuple<std::remove_cv_t<Parameters>...> arguments;
  } context{kernel, {static_cast<Parameters>(std::forward<Arguments>(arguments))...}};
  const KernelCall call = [](void* p) {
    auto* c = static_cast<Context*>(p);
    std::apply(c->kernel, c->arguments);
  };
  return run_grid(grid, block, shared_bytes, call, &context, reinterpret_cast<const void*>(kernel));
}

}  // namespace cuda_on_cpu

inline void __syncthreads(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::block_barrier(false, site);
}
inline int __syncthreads_count(int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate != 0, site);
}
inline int __syncthreads_or(int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::block_barrier(predicate == 0, site) == 0;
}

// Fences order one thread's own accesses, which one OS thread does anyway.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

[[noreturn]] inline void __trap(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::kernel_error("__trap()", site);
}
