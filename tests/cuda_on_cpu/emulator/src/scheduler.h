// Runs the threads of one block, each on a fiber, and lets them meet at barriers and warp collectives.
#pragma once
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cuda_on_cpu/ptx.h"
#include "cuda_on_cpu/runtime.h"
#include "fiber.h"

namespace cuda_on_cpu {

// In which order threads get their turn. A correct kernel cannot tell.
enum class Order { forward, reverse, random };

class Scheduler {
 public:
  void set_order(Order order, unsigned seed) {
    order_ = order;
    seed_ = seed;
  }
  Order order() const { return order_; }
  std::mt19937& random() { return random_; }

  void begin_launch(dim3 block, KernelCall call, void* context);
  // Runs one block to its end. False: it failed, and error() says why.
  bool run_block();

  // Called by the running thread.
  int barrier(bool predicate, Site site);
  void collective(std::uint32_t mask, WarpOp op, int argument, void* payload, Combine combine, Site site);
  [[noreturn]] void fail(std::string message);

  struct AsyncCopies {
    std::vector<std::vector<ptx::AsyncCopy>> groups;
    std::vector<ptx::AsyncCopy> open;
  };
  AsyncCopies& async_copies() { return threads_[current.thread].copies; }

  const std::string& error() const { return error_; }
  void set_error(std::string message) { error_ = std::move(message); }
  const Fibers& fibers() const { return fibers_; }

 private:
  enum class State : std::uint8_t { unstarted, ready, at_barrier, at_collective, exited };
  struct Thread {
    uint3 index{};
    State state = State::unstarted;
    Fiber* fiber = nullptr;
    Site site;  // where it waits
    bool predicate = false;
    int count = 0;  // of true predicates at the last barrier
    AsyncCopies copies;
  };
  // Lanes of a warp that wait for each other. Several can be pending: half a warp may be busy in
  // its own branch. Lanes that truly disagree about the mask end as a deadlock.
  struct Rendezvous {
    std::uint32_t mask = 0, arrived = 0;
    WarpOp op{};
    int argument = 0;
    Combine combine = nullptr;
    void* payload[32] = {};
  };
  struct Warp {
    std::uint32_t live = 0;
    std::vector<Rendezvous> pending;
  };

  static void fiber_body();
  void run_threads();
  void set_current(unsigned thread);
  bool next_ready(unsigned& thread);
  void make_ready(unsigned thread);
  void make_all_ready(State from);
  void run_others();  // the running thread waits; returns when it has been made ready and its turn comes
  void thread_exits();
  void release_barrier();
  void complete(unsigned warp, std::size_t rendezvous);
  [[noreturn]] void deadlock();
  // "12 thread(s) in __syncthreads at nms.cu:40; ..." for the threads in that state.
  std::string waiting_places(State state, const char* what) const;

  Fibers fibers_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> ready_;  // a queue from ready_head_ on; in random order a bag
  std::size_t ready_head_ = 0;
  unsigned live_ = 0, at_barrier_ = 0;
  KernelCall call_ = nullptr;
  void* context_ = nullptr;
  Order order_ = Order::forward;
  unsigned seed_ = 0;
  std::mt19937 random_;
  bool failed_ = false;
  std::string error_;
};
extern Scheduler scheduler;

}  // namespace cuda_on_cpu
