// A fiber: a stack and a place to go on from. CUDA threads run on these.
#pragma once
#include <cstddef>
#include <vector>

namespace cuda_on_cpu {

struct Fiber {
  char* stack = nullptr;
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// 1024 stacks with a guard page below each, and the switch between them and the caller's own.
class Fibers {
 public:
  static constexpr std::size_t kCount = 1024;  // threads in the largest block

  void allocate();     // once; then every fiber is free
  void release_all();  // whatever they were doing
  Fiber* take(void (*body)());
  void give(Fiber* fiber) { free_.push_back(fiber); }

  // From the running fiber, or from the caller of the launch; null: back to that caller.
  void switch_to(Fiber* to);
  Fiber* running() const { return running_; }

  const char* begin() const { return arena_; }
  const char* end() const;
  void arrived();  // what a fiber must do first; public for the entry trampoline

 private:
  char* arena_ = nullptr;
  std::vector<Fiber> all_;
  std::vector<Fiber*> free_;
  Fiber caller_;
  std::size_t caller_stack_bytes_ = 0;
  Fiber* running_ = nullptr;
  bool left_caller_ = false;
};

}  // namespace cuda_on_cpu
