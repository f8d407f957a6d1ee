// Work shared between torch's threads item by item.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace structops::cpu {

// Runs body(begin, end) over [0, n) on torch's threads; the binding passes torch's own.
using ParallelFor = void (*)(int64_t n, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context);

// As torch's threads, for work inside work that is shared already.
inline void on_this_thread(int64_t n, int64_t, void (*body)(int64_t, int64_t, void*), void* context) {
  body(0, n, context);
}

// Hands out [0, items) in order, some at a time, to whoever asks next.
class ItemQueue {
 public:
  ItemQueue(int64_t items, int64_t at_a_time) : items_(items), at_a_time_(at_a_time) {}
  bool take(int64_t& begin, int64_t& end) {
    begin = next_.fetch_add(at_a_time_, std::memory_order_relaxed);
    end = std::min(begin + at_a_time_, items_);
    return begin < items_;
  }

 private:
  std::atomic<int64_t> next_{0};
  const int64_t items_, at_a_time_;
};

// Calls work(queue) on up to `workers` threads; each takes items until none is left. Torch's own split
// is by count, and RoIs differ in cost by 50 times. An item's result must not depend on who runs it;
// then neither does the whole depend on the number of threads.
template <class Work>
void share(ParallelFor parallel_for, int64_t workers, int64_t items, int64_t at_a_time, const Work& work) {
  ItemQueue queue(items, at_a_time);
  if (workers <= 1) return work(queue);
  struct Context {
    ItemQueue& queue;
    const Work& work;
  } context{queue, work};
  parallel_for(
      workers, 1,
      [](int64_t, int64_t, void* pointer) {
        auto& c = *static_cast<Context*>(pointer);
        c.work(c.queue);
      },
      &context);
}

// How many threads work of this many steps (a vector load and multiply or so) can keep busy: a step is
// about 1 ns, waking a thread 5 to 10 us, and more when another process is on its core.
inline int64_t workers_for(double steps) { return static_cast<int64_t>(std::clamp(steps / 65536.0, 1.0, 1024.0)); }

}  // namespace structops::cpu
