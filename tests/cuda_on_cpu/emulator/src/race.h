// Happens-before checker for one launch: knows __syncthreads, __syncwarp and atomics.
//
// GCC's -fsanitize=thread instruments every access of the KERNEL files; its entry points are ours
// (tsan_hooks.cpp) and libtsan is not linked. Two accesses to one byte race when at least one is a
// write, not both are atomic, and neither is ordered before the other:
//   - within a block, __syncthreads orders everything before it with everything after it;
//   - within a warp, __syncwarp orders the lanes that took part (shuffles and votes do not);
//   - between blocks nothing does. Shared memory is each block's own.
// It also reports the read of shared memory that no thread of the block has written.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace cuda_on_cpu {

class RaceChecker {
 public:
  // Called while kernel files are initialised, possibly before race_checker itself is.
  static void enable() { enabled_ = true; }
  // Accesses to the fibers' stacks are local memory.
  void begin_launch(const void* stacks_begin, const void* stacks_end);
  void add_shared(const void* p, std::size_t bytes);
  void begin_block(std::uint32_t block);

  // Kernel code runs between enter_kernel and leave_kernel. The runtime's own accesses do not count,
  // and must be told apart: the linker may give it the kernel files' instrumented copies of inline
  // functions of the standard library.
  void enter_kernel() { in_kernel_ = enabled_; }
  void leave_kernel() { in_kernel_ = false; }

  void barrier() { ++barriers_; }
  void warp_sync(unsigned warp, std::uint32_t lanes);
  void access(const volatile void* p, std::size_t bytes, bool write, bool atomic, void* code);

  const std::string& report() const { return report_; }

 private:
  struct Access {
    static constexpr std::uint32_t kNobody = ~0u;
    std::uint32_t block = kNobody;
    std::uint16_t thread = 0;
    bool atomic = false;
    std::uint32_t barriers = 0;  // of the block so far
    std::uint32_t stamp = 0;     // the lane's own warp clock
    void* code = nullptr;
  };
  // Of readers only the latest two threads are kept: a race of an earlier one goes unseen when
  // both later ones are ordered, which the other thread orders then show.
  struct Byte {
    Access write, atomic, read, earlier_read;
    bool written_by(std::uint32_t block) const { return write.block == block || atomic.block == block; }
  };
  static constexpr std::size_t kPageBits = 8;
  using Page = std::array<Byte, 1 << kPageBits>;
  using Range = std::pair<std::uintptr_t, std::uintptr_t>;

  Byte& byte_at(std::uintptr_t address);
  bool conflicts(const Access& earlier, const Access& now, bool shared) const;
  void describe(const char* kind, const Access* earlier, const Access& now, bool shared);

  static inline constinit bool enabled_ = false;
  bool in_kernel_ = false;
  Range stacks_{};
  std::vector<Range> shared_;
  std::uint32_t block_ = 0, barriers_ = 0;
  std::array<std::array<std::uint32_t, 32>, 1024>
      clocks_{};  // [thread][lane]: the latest stamp known to be ordered before
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  std::uintptr_t last_key_ = 0;
  Page* last_page_ = nullptr;
  std::set<std::tuple<std::string_view, const void*, const void*>> reported_;  // kind, code of both: told once
  std::string report_;
};
extern RaceChecker race_checker;

// The runtime at work on behalf of a kernel.
struct RuntimeSection {
  RuntimeSection() { race_checker.leave_kernel(); }
  ~RuntimeSection() { race_checker.enter_kernel(); }
};

}  // namespace cuda_on_cpu
