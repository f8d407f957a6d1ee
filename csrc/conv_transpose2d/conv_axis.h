// One axis of a transposed convolution, in phases.
//
// Output o gets input i through tap k where o + padding = i * stride + k * dilation. Written as o + padding =
// q * stride + phase, the taps of a phase are those with k * dilation = phase modulo the stride, and each reads the
// input at i = q - offset with offset = (k * dilation - phase) / stride. Phases whose taps have the same offsets read
// the same pixels: they form a group, and are computed as one product with as many columns. Padding makes the phases'
// first and last q differ by one; where that makes a difference (`exact`), such phases form groups of their own.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/integers.h"
#include "conv_transpose2d/conv_transpose2d.h"

namespace structops {

struct PhaseGroup {
  std::vector<int64_t> phases;             // in ascending order
  std::vector<int64_t> offsets;            // of the taps, ascending; none where no tap reaches these outputs
  std::vector<std::vector<int64_t>> taps;  // for each phase, the kernel's index for each offset
  int64_t first, count;                    // q of the outputs that there are
};

struct Axis {
  int64_t in, out, kernel, stride, padding, dilation;
};

inline Axis vertical(const ConvTransposeParams& p) {
  return {p.height, p.out_height, p.kernel_height, p.stride_height, p.padding_height, p.dilation_height};
}
inline Axis horizontal(const ConvTransposeParams& p) {
  return {p.width, p.out_width, p.kernel_width, p.stride_width, p.padding_width, p.dilation_width};
}

// Whether some phases have two taps and some one: 3 taps and stride 2. With zeros for the taps that are missing they
// are one group, of twice its stride; where numbers are finite, that changes nothing.
inline bool widens(const Axis& axis) {
  return axis.dilation == 1 && axis.stride < axis.kernel && axis.kernel < 2 * axis.stride;
}
inline Axis widened(Axis axis) {
  axis.kernel = 2 * axis.stride;
  return axis;
}

inline std::vector<PhaseGroup> phase_groups(const Axis& axis, bool exact) {
  std::vector<PhaseGroup> groups;
  for (int64_t phase = 0; phase < axis.stride; ++phase) {
    std::vector<int64_t> taps, offsets;
    for (int64_t k = 0; k < axis.kernel; ++k)
      if (k * axis.dilation % axis.stride == phase) {
        taps.push_back(k);
        offsets.push_back((k * axis.dilation - phase) / axis.stride);
      }
    // The first q with an output, and the one after the last.
    const int64_t first = -floor_divide(phase - axis.padding, axis.stride);
    const int64_t last = floor_divide(axis.out - 1 + axis.padding - phase, axis.stride) + 1;
    if (last <= first) continue;  // more phases than outputs
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const PhaseGroup& g) {
      return g.offsets == offsets && (!exact || (g.first == first && g.first + g.count == last));
    });
    if (same == groups.end()) {
      groups.push_back({{phase}, offsets, {taps}, first, last - first});
      continue;
    }
    const int64_t end = std::max(same->first + same->count, last);
    same->first = std::min(same->first, first);
    same->count = end - same->first;
    same->phases.push_back(phase);
    same->taps.push_back(taps);
  }
  return groups;
}

}  // namespace structops
