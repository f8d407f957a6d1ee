// Warp shuffles, votes, matches and reductions, as combines over a rendezvous of lanes.
#pragma once
#include <algorithm>
#include <concepts>
#include <cstring>

#include "cuda_on_cpu/runtime.h"

namespace cuda_on_cpu {

template <class T, class... Allowed>
concept OneOf = (std::same_as<T, Allowed> || ...);

// Only the types that CUDA overloads, so that code which nvcc refuses fails here too.
template <class T>
concept Shuffleable = OneOf<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double, __half,
                            __half2, __nv_bfloat16, __nv_bfloat162>;

template <class Visit>
void for_each_lane(std::uint32_t present, Visit visit) {
  for (int lane = 0; lane < 32; ++lane)
    if (present >> lane & 1) visit(lane);
}

template <class T>
struct ShufflePayload {
  T in, out;
  int source;
};

template <class T>
T shuffle(std::uint32_t mask, WarpOp op, T value, int source, int width, Site site) {
  ShufflePayload<T> payload{value, value, source};
  const Combine combine = [](void** payloads, std::uint32_t present, int) {
    for_each_lane(present, [&](int lane) {
      auto* mine = static_cast<ShufflePayload<T>*>(payloads[lane]);
      if (present >> mine->source & 1) {
        mine->out = static_cast<ShufflePayload<T>*>(payloads[mine->source])->in;
      } else {  // undefined on a GPU; all ones is a NaN
        std::memset(static_cast<void*>(&mine->out), 0xff, sizeof(T));
      }
    });
  };
  warp_collective(mask, op, width, &payload, combine, site);
  return payload.out;
}

// First lane of the calling lane's segment of `width` lanes.
inline int segment_base(int width, Site site) {
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0)
    kernel_error("shuffle width is not a power of two up to 32", site);
  return static_cast<int>(current.lane) & ~(width - 1);
}

struct VotePayload {
  std::uint64_t in;
  std::uint32_t out;
};

// Bits of the lanes that passed a non-zero value.
inline std::uint32_t vote(std::uint32_t mask, WarpOp op, bool value, Site site) {
  VotePayload payload{value, 0};
  const Combine combine = [](void** payloads, std::uint32_t present, int) {
    std::uint32_t bits = 0;
    for_each_lane(present, [&](int lane) {
      bits |= static_cast<std::uint32_t>(static_cast<VotePayload*>(payloads[lane])->in != 0) << lane;
    });
    for_each_lane(present, [&](int lane) { static_cast<VotePayload*>(payloads[lane])->out = bits; });
  };
  warp_collective(mask, op, 0, &payload, combine, site);
  return payload.out;
}

// Bits of the lanes that passed the same value as the caller.
inline std::uint32_t match(std::uint32_t mask, std::uint64_t value, Site site) {
  VotePayload payload{value, 0};
  const Combine combine = [](void** payloads, std::uint32_t present, int) {
    for_each_lane(present, [&](int lane) {
      auto* mine = static_cast<VotePayload*>(payloads[lane]);
      mine->out = 0;
      for_each_lane(present, [&](int other) {
        const bool same = static_cast<VotePayload*>(payloads[other])->in == mine->in;
        mine->out |= static_cast<std::uint32_t>(same) << other;
      });
    });
  };
  warp_collective(mask, WarpOp::match_any, 0, &payload, combine, site);
  return payload.out;
}

enum class Reduction { add, min, max, bit_and, bit_or, bit_xor };

template <class T>
T reduced(T a, T b, Reduction how) {
  switch (how) {
    case Reduction::add:
      return static_cast<T>(static_cast<unsigned>(a) + static_cast<unsigned>(b));  // wraps
    case Reduction::min:
      return std::min(a, b);
    case Reduction::max:
      return std::max(a, b);
    case Reduction::bit_and:
      return a & b;
    case Reduction::bit_or:
      return a | b;
    default:
      return a ^ b;
  }
}

template <class T>
T reduce(std::uint32_t mask, T value, Reduction how, Site site) {
  const Combine combine = [](void** payloads, std::uint32_t present, int how_) {
    const int first = std::countr_zero(present);
    T total = *static_cast<T*>(payloads[first]);
    for_each_lane(present & (present - 1), [&](int lane) {
      total = reduced(total, *static_cast<T*>(payloads[lane]), static_cast<Reduction>(how_));
    });
    for_each_lane(present, [&](int lane) { *static_cast<T*>(payloads[lane]) = total; });
  };
  warp_collective(mask, WarpOp::reduce, static_cast<int>(how), &value, combine, site);
  return value;
}

}  // namespace cuda_on_cpu

inline void __syncwarp(unsigned mask = 0xffffffffu, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  cuda_on_cpu::warp_collective(mask, cuda_on_cpu::WarpOp::sync, 0, nullptr, nullptr, site);
}

// Nothing guarantees that lanes run together, so the least helpful answer is a legal one.
inline unsigned __activemask() { return 1u << cuda_on_cpu::current.lane; }

template <cuda_on_cpu::Shuffleable T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int from = cuda_on_cpu::segment_base(width, site) + (source & (width - 1));
  return cuda_on_cpu::shuffle(mask, cuda_on_cpu::WarpOp::shuffle_index, value, from, width, site);
}
template <cuda_on_cpu::Shuffleable T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int lane = static_cast<int>(cuda_on_cpu::current.lane), from = lane - static_cast<int>(delta);
  const bool outside = from < cuda_on_cpu::segment_base(width, site);
  return cuda_on_cpu::shuffle(mask, cuda_on_cpu::WarpOp::shuffle_up, value, outside ? lane : from, width, site);
}
template <cuda_on_cpu::Shuffleable T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int lane = static_cast<int>(cuda_on_cpu::current.lane), from = lane + static_cast<int>(delta);
  const bool outside = from >= cuda_on_cpu::segment_base(width, site) + width;
  return cuda_on_cpu::shuffle(mask, cuda_on_cpu::WarpOp::shuffle_down, value, outside ? lane : from, width, site);
}
template <cuda_on_cpu::Shuffleable T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  const int lane = static_cast<int>(cuda_on_cpu::current.lane), from = lane ^ lanes;
  const bool outside = from >= cuda_on_cpu::segment_base(width, site) + width;
  return cuda_on_cpu::shuffle(mask, cuda_on_cpu::WarpOp::shuffle_xor, value, outside ? lane : from, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::vote(mask, cuda_on_cpu::WarpOp::ballot, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::vote(mask, cuda_on_cpu::WarpOp::any, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  return cuda_on_cpu::vote(mask, cuda_on_cpu::WarpOp::all, predicate == 0, site) == 0;
}
template <class T>
  requires std::is_arithmetic_v<T>
unsigned __match_any_sync(unsigned mask, T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return cuda_on_cpu::match(mask, bits, site);
}

#define CUDA_ON_CPU_REDUCE(name, how)                                                  \
  template <cuda_on_cpu::OneOf<int, unsigned> T>                                       \
  T name(unsigned mask, T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) { \
    return cuda_on_cpu::reduce(mask, value, cuda_on_cpu::Reduction::how, site);        \
  }
CUDA_ON_CPU_REDUCE(__reduce_add_sync, add)
CUDA_ON_CPU_REDUCE(__reduce_min_sync, min)
CUDA_ON_CPU_REDUCE(__reduce_max_sync, max)
CUDA_ON_CPU_REDUCE(__reduce_and_sync, bit_and)
CUDA_ON_CPU_REDUCE(__reduce_or_sync, bit_or)
CUDA_ON_CPU_REDUCE(__reduce_xor_sync, bit_xor)
#undef CUDA_ON_CPU_REDUCE
