#include "scheduler.h"

#include <algorithm>
#include <map>

#include "launch.h"
#include "race.h"

namespace cuda_on_cpu {

Current current;
Scheduler scheduler;

void Scheduler::begin_launch(dim3 block, KernelCall call, void* context) {
  fibers_.allocate();
  const unsigned count = block.x * block.y * block.z;
  threads_.assign(count, {});
  for (unsigned t = 0; t < count; ++t)
    threads_[t].index = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
  warps_.assign((count + 31) / 32, {});
  call_ = call;
  context_ = context;
  random_.seed(seed_);
  error_.clear();
  failed_ = false;
}

bool Scheduler::run_block() {
  fibers_.release_all();
  for (Thread& thread : threads_) {
    thread.state = State::unstarted;
    thread.fiber = nullptr;
    thread.copies.groups.clear();
    thread.copies.open.clear();
  }
  const auto count = static_cast<unsigned>(threads_.size());
  for (unsigned w = 0; w < warps_.size(); ++w) {
    const unsigned lanes = std::min(32u, count - w * 32);
    warps_[w].live = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warps_[w].pending.clear();
  }
  ready_.clear();
  ready_head_ = 0;
  live_ = count;
  at_barrier_ = 0;
  make_all_ready(State::unstarted);
  run_others();  // back here when all have exited, or one has failed
  return !failed_;
}

void Scheduler::set_current(unsigned thread) {
  current.thread = thread;
  current.lane = thread % 32;
  current.warp = thread / 32;
  current.thread_index = threads_[thread].index;
}

void Scheduler::make_ready(unsigned thread) {
  if (threads_[thread].state != State::unstarted) threads_[thread].state = State::ready;
  ready_.push_back(thread);
}

void Scheduler::make_all_ready(State from) {
  const auto count = static_cast<unsigned>(threads_.size());
  for (unsigned i = 0; i < count; ++i) {
    const unsigned thread = order_ == Order::reverse ? count - 1 - i : i;
    if (threads_[thread].state == from) make_ready(thread);
  }
}

bool Scheduler::next_ready(unsigned& thread) {
  if (ready_head_ == ready_.size()) return false;
  if (order_ == Order::random)
    std::swap(ready_[ready_head_], ready_[ready_head_ + random_() % (ready_.size() - ready_head_)]);
  thread = ready_[ready_head_++];
  if (ready_head_ == ready_.size()) {
    ready_.clear();
    ready_head_ = 0;
  }
  return true;
}

void Scheduler::run_others() {
  unsigned thread;
  if (!next_ready(thread)) {
    if (live_ != 0) deadlock();
    fibers_.switch_to(nullptr);
    return;
  }
  set_current(thread);
  if (threads_[thread].fiber == nullptr) threads_[thread].fiber = fibers_.take(fiber_body);
  if (threads_[thread].fiber != fibers_.running()) fibers_.switch_to(threads_[thread].fiber);
}

void Scheduler::fiber_body() { scheduler.run_threads(); }

// The loop of every fiber. A thread that exits leaves its stack to the next that has not started:
// kernels without barriers then run all threads of a block on one stack, as fast as a loop.
void Scheduler::run_threads() {
  for (;;) {
    race_checker.enter_kernel();
    call_(context_);
    race_checker.leave_kernel();
    Fiber* here = fibers_.running();
    const unsigned finished = current.thread;
    thread_exits();
    threads_[finished].fiber = nullptr;
    unsigned next;
    if (!next_ready(next)) {
      if (live_ != 0) deadlock();
      fibers_.switch_to(nullptr);
    }
    set_current(next);
    if (threads_[next].fiber == nullptr) {
      threads_[next].fiber = here;
      continue;
    }
    fibers_.give(here);
    fibers_.switch_to(threads_[next].fiber);
  }
}

void Scheduler::thread_exits() {
  const unsigned thread = current.thread;
  threads_[thread].state = State::exited;
  --live_;
  Warp& warp = warps_[current.warp];
  warp.live &= ~(1u << current.lane);
  // Waiting lanes may have been waiting for this one; so may the whole block.
  for (std::size_t i = 0; i < warp.pending.size();) {
    if ((warp.pending[i].mask & warp.live) == warp.pending[i].arrived) {
      complete(current.warp, i);
    } else {
      ++i;
    }
  }
  if (live_ != 0 && at_barrier_ == live_) release_barrier();
}

int Scheduler::barrier(bool predicate, Site site) {
  const RuntimeSection section;
  const unsigned thread = current.thread;
  Thread& self = threads_[thread];
  self.state = State::at_barrier;
  self.site = site;
  self.predicate = predicate;
  if (++at_barrier_ == live_) release_barrier();
  run_others();
  set_current(thread);
  return self.count;
}

void Scheduler::release_barrier() {
  int count = 0;
  const Thread* first = nullptr;
  bool one_place = true;
  for (const Thread& thread : threads_) {
    if (thread.state != State::at_barrier) continue;
    if (first == nullptr) first = &thread;
    one_place &= thread.site == first->site;
    count += thread.predicate;
  }
  // Hardware would let them pass, but the programming guide calls it undefined.
  if (!one_place) fail("divergent barrier: " + waiting_places(State::at_barrier, "__syncthreads"));
  for (Thread& thread : threads_)
    if (thread.state == State::at_barrier) thread.count = count;
  at_barrier_ = 0;
  race_checker.barrier();
  make_all_ready(State::at_barrier);
}

void Scheduler::collective(std::uint32_t mask, WarpOp op, int argument, void* payload, Combine combine, Site site) {
  const RuntimeSection section;
  const unsigned thread = current.thread, lane = current.lane, index = current.warp;
  if ((mask >> lane & 1) == 0) kernel_error("the calling lane is not in the mask of its warp collective", site);
  Warp& warp = warps_[index];
  std::size_t i = 0;
  while (i < warp.pending.size() && warp.pending[i].mask != mask) ++i;
  if (i == warp.pending.size()) {
    warp.pending.emplace_back();
    warp.pending[i].mask = mask;
    warp.pending[i].op = op;
    warp.pending[i].argument = argument;
    warp.pending[i].combine = combine;
  }
  Rendezvous& r = warp.pending[i];
  if (r.op != op || r.argument != argument || r.combine != combine)
    kernel_error("lanes of a warp meet in different collectives", site);
  r.arrived |= 1u << lane;
  r.payload[lane] = payload;
  threads_[thread].state = State::at_collective;
  threads_[thread].site = site;
  if (r.arrived == (mask & warp.live)) complete(index, i);
  run_others();
  set_current(thread);
}

void Scheduler::complete(unsigned warp, std::size_t rendezvous) {
  auto& pending = warps_[warp].pending;
  Rendezvous done = pending[rendezvous];
  pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(rendezvous));
  if (done.combine != nullptr) done.combine(done.payload, done.arrived, done.argument);
  if (done.op == WarpOp::matrix) ++(done.argument == 0 ? counts.products : counts.fragments);
  if (done.op == WarpOp::sync) race_checker.warp_sync(warp, done.arrived);
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned lane = order_ == Order::reverse ? 31 - i : i;
    if (done.arrived >> lane & 1) make_ready(warp * 32 + lane);
  }
}

std::string Scheduler::waiting_places(State state, const char* what) const {
  std::map<std::string, int> places;
  for (const Thread& thread : threads_)
    if (thread.state == state) ++places[std::string(thread.site.file) + ":" + std::to_string(thread.site.line)];
  std::string text;
  for (const auto& [place, count] : places)
    text += std::to_string(count) + " thread(s) in " + what + " at " + place + "; ";
  return text;
}

void Scheduler::deadlock() {
  const auto exited = threads_.size() - live_;
  fail("deadlock: " + waiting_places(State::at_barrier, "__syncthreads") +
       waiting_places(State::at_collective, "a warp collective") + std::to_string(exited) + " exited");
}

void Scheduler::fail(std::string message) {
  race_checker.leave_kernel();
  error_ = std::move(message);
  failed_ = true;
  fibers_.switch_to(nullptr);  // the block's other fibers are abandoned as they stand
  __builtin_unreachable();
}

void kernel_error(const char* what, Site site) {
  race_checker.leave_kernel();
  const auto triple = [](const auto& v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
  };
  scheduler.fail(std::string(what) + " at " + site.file + ":" + std::to_string(site.line) + ", block " +
                 triple(current.block_index) + " thread " + triple(current.thread_index));
}

int block_barrier(bool predicate, Site site) { return scheduler.barrier(predicate, site); }

void warp_collective(std::uint32_t mask, WarpOp op, int argument, void* payload, Combine combine, Site site) {
  scheduler.collective(mask, op, argument, payload, combine, site);
}

void note_atomic(const volatile void* address, std::size_t bytes) {
  race_checker.access(address, bytes, true, true, __builtin_return_address(0));
}

namespace ptx {
void async_copy_issue(const AsyncCopy& copy) {
  const RuntimeSection section;
  ++counts.copies;
  counts.copied += copy.read;
  scheduler.async_copies().open.push_back(copy);
}
void async_copy_commit() {
  const RuntimeSection section;
  auto& copies = scheduler.async_copies();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}
void async_copy_wait(int pending, void (*carry_out)(const AsyncCopy&)) {
  const RuntimeSection section;
  auto& groups = scheduler.async_copies().groups;
  while (groups.size() > static_cast<std::size_t>(pending)) {
    for (const AsyncCopy& copy : groups.front()) {
      race_checker.enter_kernel();
      carry_out(copy);
      race_checker.leave_kernel();
    }
    groups.erase(groups.begin());
  }
}
}  // namespace ptx

}  // namespace cuda_on_cpu
