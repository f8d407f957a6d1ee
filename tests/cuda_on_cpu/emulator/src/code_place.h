// Where an address of code lies, for reports.
#pragma once
#include <dlfcn.h>

#include <cstdio>
#include <string>

namespace cuda_on_cpu {

// "library.so+0xoffset", which the Python side turns into function, file and line.
inline std::string code_place(const void* code) {
  Dl_info info;
  char text[512];
  if (dladdr(code, &info) != 0 && info.dli_fname != nullptr) {
    const auto offset = static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase);
    std::snprintf(text, sizeof text, "%s+0x%zx", info.dli_fname, static_cast<std::size_t>(offset));
  } else {
    std::snprintf(text, sizeof text, "%p", code);
  }
  return text;
}

}  // namespace cuda_on_cpu
