#include "library.h"

#include "launch.h"
#include "scheduler.h"

namespace cuda_on_cpu {

std::map<std::string, Launcher>& launchers() {
  static std::map<std::string, Launcher> all;
  return all;
}

}  // namespace cuda_on_cpu

extern "C" const cuda_on_cpu::Library* cuda_on_cpu_library() {
  using namespace cuda_on_cpu;
  static const Library library{
      []() -> const std::map<std::string, Launcher>& { return launchers(); },
      [](int order, unsigned seed) { scheduler.set_order(static_cast<Order>(order), seed); },
      [] { return scheduler.error().c_str(); },
      []() -> const Counts& { return counts; },
  };
  return &library;
}
