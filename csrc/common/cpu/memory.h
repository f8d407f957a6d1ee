// Large fresh buffers of the CPU kernels.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace structops::cpu {

constexpr uintptr_t kHugePage = uintptr_t{1} << 21;

// Asks for huge pages under a buffer that has not been written yet. A fresh 50 MB output is 12,000
// page faults of 4 KB, which cost more than the kernel that fills it: 19 ms on two cores, against 3 ms
// for the same bytes written a second time. Applies to these bytes only; where the system's setting is
// "never", or below two huge pages, nothing changes.
inline void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__)
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + 4095) & ~uintptr_t{4095};
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) & ~uintptr_t{4095};
  if (bytes >= static_cast<int64_t>(2 * kHugePage)) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Uninitialised scratch that grows and is reused; trivially copyable types only.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  // At least n elements, from an address that suits every vector; what they held is lost when it grows.
  T* at_least(int64_t n) {
    if (n <= size_) return data_;
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    const size_t bytes = static_cast<size_t>(n) * sizeof(T);
    const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
    if (data_ == nullptr) throw std::bad_alloc();
    advise_huge_pages(data_, static_cast<int64_t>(bytes));
    size_ = n;
    return data_;
  }
  T* get() const { return data_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace structops::cpu
