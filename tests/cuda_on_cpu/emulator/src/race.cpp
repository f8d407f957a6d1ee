#include "race.h"

#include <algorithm>

#include "code_place.h"
#include "cuda_on_cpu/runtime.h"

namespace cuda_on_cpu {

RaceChecker race_checker;

namespace {

constexpr std::size_t kMostReports = 16;

bool contains(const std::pair<std::uintptr_t, std::uintptr_t>& range, std::uintptr_t address) {
  return address >= range.first && address < range.second;
}

}  // namespace

void RaceChecker::begin_launch(const void* stacks_begin, const void* stacks_end) {
  stacks_ = {reinterpret_cast<std::uintptr_t>(stacks_begin), reinterpret_cast<std::uintptr_t>(stacks_end)};
  pages_.clear();
  last_page_ = nullptr;
  shared_.clear();
  report_.clear();
  reported_.clear();
}

void RaceChecker::add_shared(const void* p, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  shared_.emplace_back(begin, begin + bytes);
}

void RaceChecker::begin_block(std::uint32_t block) {
  block_ = block;
  barriers_ = 0;
  if (!enabled_) return;
  for (std::size_t thread = 0; thread < clocks_.size(); ++thread) {
    clocks_[thread].fill(0);
    clocks_[thread][thread % 32] = 1;
  }
}

void RaceChecker::warp_sync(unsigned warp, std::uint32_t lanes) {
  if (!enabled_) return;
  std::array<std::uint32_t, 32> joined{};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    for (unsigned i = 0; i < 32; ++i) joined[i] = std::max(joined[i], clocks_[warp * 32 + lane][i]);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    clocks_[warp * 32 + lane] = joined;
    ++clocks_[warp * 32 + lane][lane];
  }
}

RaceChecker::Byte& RaceChecker::byte_at(std::uintptr_t address) {
  const std::uintptr_t key = address >> kPageBits;
  if (last_page_ == nullptr || key != last_key_) {
    auto& page = pages_[key];
    if (page == nullptr) page = std::make_unique<Page>();
    last_page_ = page.get();
    last_key_ = key;
  }
  return (*last_page_)[address & ((1 << kPageBits) - 1)];
}

bool RaceChecker::conflicts(const Access& earlier, const Access& now, bool shared) const {
  if (earlier.block == Access::kNobody || (earlier.atomic && now.atomic)) return false;
  if (earlier.block != now.block) return !shared;
  if (earlier.thread == now.thread || earlier.barriers < now.barriers) return false;
  const bool same_warp = earlier.thread / 32 == now.thread / 32;
  return !(same_warp && clocks_[now.thread][earlier.thread % 32] >= earlier.stamp);
}

void RaceChecker::describe(const char* kind, const Access* earlier, const Access& now, bool shared) {
  if (reported_.size() == kMostReports) return;
  if (!reported_.emplace(kind, earlier != nullptr ? earlier->code : nullptr, now.code).second) return;
  const auto who = [](const Access& a) {
    return "block " + std::to_string(a.block) + " thread " + std::to_string(a.thread) + " [" +
           code_place(static_cast<const char*>(a.code) - 1) + "]";  // in the call, not after it
  };
  report_ += std::string(kind) + (shared ? " in shared memory: " : " in global memory: ");
  if (earlier != nullptr) report_ += who(*earlier) + " and ";
  report_ += who(now) + "\n";
}

void RaceChecker::access(const volatile void* p, std::size_t bytes, bool write, bool atomic, void* code) {
  if (!in_kernel_) return;
  const RuntimeSection section;
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (contains(stacks_, address)) return;
  const auto own = reinterpret_cast<std::uintptr_t>(&current);
  if (contains({own, own + sizeof current}, address)) return;
  const bool shared = std::any_of(shared_.begin(), shared_.end(), [&](const Range& r) { return contains(r, address); });

  Access now;
  now.block = block_;
  now.thread = static_cast<std::uint16_t>(current.thread);
  now.atomic = atomic;
  now.barriers = barriers_;
  now.stamp = clocks_[current.thread][current.lane];
  now.code = code;

  bool told = false;  // one report an access, not one a byte
  const auto check = [&](const Access& earlier, const char* kind) {
    if (told || !conflicts(earlier, now, shared)) return;
    describe(kind, &earlier, now, shared);
    told = true;
  };
  for (std::size_t i = 0; i < bytes; ++i) {
    Byte& byte = byte_at(address + i);
    // Single bytes excepted: GCC guards the initialisation of some thread_locals with a byte beside them.
    if (shared && bytes > 1 && !told && (!write || atomic) && !byte.written_by(block_)) {
      describe("read of uninitialised data", nullptr, now, shared);
      told = true;
    }
    check(byte.write, write ? "write/write race" : "write/read race");
    check(byte.atomic, write ? "write/write race" : "write/read race");
    if (write) {
      check(byte.read, "read/write race");
      check(byte.earlier_read, "read/write race");
      (atomic ? byte.atomic : byte.write) = now;
    } else {
      if (byte.read.block != now.block || byte.read.thread != now.thread) byte.earlier_read = byte.read;
      byte.read = now;
    }
  }
}

}  // namespace cuda_on_cpu
