// The functions that -fsanitize=thread makes kernel code call at every access. Race flavour only.
#include "race.h"

using cuda_on_cpu::race_checker;

#define CALLER __builtin_return_address(0)
#define HOOKS(bytes)                                                                                             \
  extern "C" void __tsan_read##bytes(void* p) { race_checker.access(p, bytes, false, false, CALLER); }           \
  extern "C" void __tsan_write##bytes(void* p) { race_checker.access(p, bytes, true, false, CALLER); }           \
  extern "C" void __tsan_unaligned_read##bytes(void* p) { race_checker.access(p, bytes, false, false, CALLER); } \
  extern "C" void __tsan_unaligned_write##bytes(void* p) { race_checker.access(p, bytes, true, false, CALLER); } \
  extern "C" void __tsan_volatile_read##bytes(void* p) { race_checker.access(p, bytes, false, false, CALLER); }  \
  extern "C" void __tsan_volatile_write##bytes(void* p) { race_checker.access(p, bytes, true, false, CALLER); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" void __tsan_read_range(void* p, std::size_t n) { race_checker.access(p, n, false, false, CALLER); }
extern "C" void __tsan_write_range(void* p, std::size_t n) { race_checker.access(p, n, true, false, CALLER); }
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_init() { cuda_on_cpu::RaceChecker::enable(); }
