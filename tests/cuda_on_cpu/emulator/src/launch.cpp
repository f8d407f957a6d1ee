// Launches: what the driver would refuse, shared memory, the blocks of the grid one after another.
#include "launch.h"

#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "code_place.h"
#include "cuda_on_cpu/runtime.h"
#include "race.h"
#include "scheduler.h"

namespace cuda_on_cpu {
namespace {

struct Region {
  void* begin = nullptr;
  std::size_t bytes = 0;
};

std::map<const void*, std::size_t> raised_limits;
Region dynamic_shared;

// The thread-local segment of this library: all static __shared__ variables, and nothing else, as
// long as nothing else in it is thread_local. Empty in the asan flavour.
Region static_shared() {
  Region found;
#ifdef CUDA_ON_CPU_SHARED_IN_TLS
  static thread_local volatile char touch;
  touch = 1;  // the loader allocates the segment at the first use
  const auto visit = [](dl_phdr_info* info, std::size_t, void* result) {
    const auto here = reinterpret_cast<std::uintptr_t>(&static_shared);
    bool ours = false;
    std::size_t bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const auto& header = info->dlpi_phdr[i];
      const auto begin = info->dlpi_addr + header.p_vaddr;
      if (header.p_type == PT_LOAD && here >= begin && here < begin + header.p_memsz) ours = true;
      if (header.p_type == PT_TLS) bytes = header.p_memsz;
    }
    if (ours && info->dlpi_tls_data != nullptr) *static_cast<Region*>(result) = {info->dlpi_tls_data, bytes};
    return ours ? 1 : 0;
  };
  dl_iterate_phdr(visit, &found);
#endif
  return found;
}

// Why the driver would refuse the launch; null when it would not.
const char* refusal(dim3 grid, dim3 block, std::size_t shared_bytes, const void* kernel) {
  const auto threads = 1ull * block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64) return "bad block dimensions";
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return "empty grid";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "grid too large";
  const auto raised = raised_limits.find(kernel);
  if (shared_bytes > (raised == raised_limits.end() ? kDefaultSharedBytes : raised->second))
    return "more dynamic shared memory than the kernel may use";
  return nullptr;
}

std::vector<std::uint64_t> block_order(std::uint64_t blocks) {
  std::vector<std::uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  if (scheduler.order() == Order::reverse) std::reverse(order.begin(), order.end());
  if (scheduler.order() == Order::random) std::shuffle(order.begin(), order.end(), scheduler.random());
  return order;
}

}  // namespace

bool raise_shared_limit(const void* kernel, std::size_t bytes) {
  if (bytes > kMostSharedBytes) return false;
  raised_limits[kernel] = bytes;
  return true;
}

Counts counts;

void* dynamic_smem() { return dynamic_shared.begin; }

cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, KernelCall call, void* context,
                     const void* kernel) {
  if (const char* why = refusal(grid, block, shared_bytes, kernel)) {
    scheduler.set_error(std::string(why) + " in the launch of " + code_place(kernel));
    return record(cudaErrorInvalidConfiguration);
  }
  ++counts.launches;
  scheduler.begin_launch(block, call, context);
  current = {};
  current.block_dim = block;
  current.grid_dim = grid;

  dynamic_shared = {};
  if (shared_bytes != 0) {  // its own allocation of the exact size: AddressSanitizer sees an overrun
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, shared_bytes) != 0) return record(cudaErrorMemoryAllocation);
    dynamic_shared = {memory, shared_bytes};
  }
  const Region statics = static_shared();
  race_checker.begin_launch(scheduler.fibers().begin(), scheduler.fibers().end());
  race_checker.add_shared(dynamic_shared.begin, dynamic_shared.bytes);
  race_checker.add_shared(statics.begin, statics.bytes);

  bool good = true;
  for (const std::uint64_t index : block_order(1ull * grid.x * grid.y * grid.z)) {
    current.block_index = {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
                           static_cast<unsigned>(index / grid.x / grid.y)};
    // All ones is a NaN in every floating type and -1 as an index: shared memory left unwritten shows.
    if (statics.begin != nullptr) std::memset(statics.begin, 0xff, statics.bytes);
    if (dynamic_shared.begin != nullptr) std::memset(dynamic_shared.begin, 0xff, dynamic_shared.bytes);
    race_checker.begin_block(static_cast<std::uint32_t>(index));
    good = scheduler.run_block();
    if (!good) break;
  }
  std::free(dynamic_shared.begin);
  dynamic_shared = {};
  if (good && !race_checker.report().empty()) {
    scheduler.set_error(race_checker.report());
    good = false;
  }
  return record(good ? cudaSuccess : cudaErrorLaunchFailure);
}

}  // namespace cuda_on_cpu
