// structops::_build_info() -> str: what this library was built with and what it chose, for `structops info`.
#include <string>

#include "common/cpu/isa.h"
#include "common/tensor.h"

namespace structops {
namespace {

std::string build_info() {
  std::string info;
  const auto line = [&](const char* key, const std::string& value) { info += std::string(key) + "=" + value + "\n"; };
#if defined(__clang__)
  line("compiler", "clang " __clang_version__);
#elif defined(__GNUC__)
  line("compiler", "g++ " __VERSION__);
#else
  line("compiler", "unknown");
#endif
  line("c++", std::to_string(__cplusplus));
#if defined(__OPTIMIZE__)
  line("optimised", "yes");
#else
  line("optimised", "no (STRUCTOPS_DEBUG=1)");
#endif
  line("torch built against", std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) + "." +
                                  std::to_string(TORCH_VERSION_PATCH));
  // The version is packed as one byte each of major, minor and patch at the top of 64 bits.
  line("torch at least",
       std::to_string((TORCH_TARGET_VERSION >> 56) & 0xff) + "." + std::to_string((TORCH_TARGET_VERSION >> 48) & 0xff));
  line("simd", cpu::isa_name(cpu::isa()));
  return info;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) { m.def("_build_info() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(structops, CompositeExplicitAutograd, m) { m.impl("_build_info", TORCH_BOX(&build_info)); }

}  // namespace structops
