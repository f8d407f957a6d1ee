// What an emulated library exports to the pybind11 module, which loads it with dlopen: the module
// must not share a library with the kernels, whose thread-local segment is overwritten.
#pragma once
#include "launchers.h"

namespace cuda_on_cpu {

// What was done since the library was loaded.
struct Counts {
  std::int64_t launches = 0;
  std::int64_t products = 0, fragments = 0;  // mma.sync and ldmatrix, of a warp
  std::int64_t copies = 0, copied = 0;       // cp.async, of a thread: issued, and those that read
};

struct Library {
  const std::map<std::string, Launcher>& (*launchers)();
  void (*set_order)(int order, unsigned seed);  // 0 forward, 1 reverse, 2 random
  const char* (*error)();                       // of the last failure
  const Counts& (*counts)();
};

}  // namespace cuda_on_cpu

extern "C" __attribute__((visibility("default"))) const cuda_on_cpu::Library* cuda_on_cpu_library();
