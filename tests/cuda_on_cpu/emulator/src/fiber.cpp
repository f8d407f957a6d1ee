#include "fiber.h"

#include <sys/mman.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 << 10;  // red zones make frames several times larger
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif
constexpr std::size_t kGuardBytes = 4096;
constexpr std::size_t kPitch = kStackBytes + kGuardBytes;

#if defined(__x86_64__)
// Saves the callee-saved registers on the stack, stores its pointer, and goes on from the other
// stack. 4 ns; swapcontext makes two system calls and takes 300.
extern "C" void cuda_on_cpu_switch(void** save, void* to);
asm(R"(
.text
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch,@function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch,.-cuda_on_cpu_switch
)");
constexpr int kSavedRegisters = 6;
#else
#error "the fiber switch is written for x86-64"
#endif

Fibers* entering = nullptr;
void (*entry_body)() = nullptr;

extern "C" void cuda_on_cpu_fiber_entry() {
  entering->arrived();
  entry_body();
  __builtin_trap();
}

}  // namespace

const char* Fibers::end() const { return arena_ + kCount * kPitch; }

void Fibers::allocate() {
  if (arena_ != nullptr) return;
  void* arena =
      mmap(nullptr, kCount * kPitch, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<char*>(arena);
  all_.resize(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    mprotect(arena_ + i * kPitch, kGuardBytes, PROT_NONE);
    all_[i].stack = arena_ + i * kPitch + kGuardBytes;
  }
}

void Fibers::release_all() {
  free_.clear();
  for (Fiber& fiber : all_) free_.push_back(&fiber);
}

Fiber* Fibers::take(void (*body)()) {
  Fiber* fiber = free_.back();
  free_.pop_back();
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber->stack, kStackBytes);  // a thread abandoned in mid-call left red zones
#endif
  entering = this;
  entry_body = body;
  fiber->fake_stack = nullptr;
  // The entry is "returned" to; above it a free word, so that the stack is aligned as after a call.
  void** top = reinterpret_cast<void**>(fiber->stack + kStackBytes) - 1;
  *--top = reinterpret_cast<void*>(cuda_on_cpu_fiber_entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  fiber->stack_pointer = top;
  return fiber;
}

void Fibers::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  Fiber& here = running_ != nullptr ? *running_ : caller_;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &bytes);
  if (left_caller_) {
    caller_.stack = static_cast<char*>(const_cast<void*>(bottom));
    caller_stack_bytes_ = bytes;
  }
#endif
}

void Fibers::switch_to(Fiber* to) {
  Fiber& from = running_ != nullptr ? *running_ : caller_;
  Fiber& target = to != nullptr ? *to : caller_;
  left_caller_ = running_ == nullptr;
  running_ = to;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, target.stack, to != nullptr ? kStackBytes : caller_stack_bytes_);
#endif
  cuda_on_cpu_switch(&from.stack_pointer, target.stack_pointer);
  arrived();
}

}  // namespace cuda_on_cpu
