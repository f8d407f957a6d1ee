// Which level of a feature pyramid a RoI belongs to (Lin et al., "Feature Pyramid Networks", 2017, equation 1), for
// the CPU and GPU alike.
//
// The paper's floor(k0 + log2(sqrt(area) / canonical_scale) + 1e-6) is monotonic in the area, so a level is counted as
// the thresholds that the area reaches. They are made once on the host from sums and products alone, so every backend
// takes the same decision to the bit, which a logarithm does not promise. structops/reference/multiscale_roi_align.py
// says the same in Python.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/roi_axis.h"
#include "roi_align/roi_align.h"

namespace structops {

struct LevelRule {
  // Areas, ascending, in square image pixels: as many as the maps, the unused ones NaN. A box that reaches the
  // last one is past the coarsest map (which torchvision allows, where scales skip a level).
  double t0, t1, t2, t3, t4, t5, t6, t7;  // by name: the emulator of the tests passes structs field by field
};

// k of a map with scale = 2^-k; other scales round towards zero. In float, as torchvision takes it.
inline int level_number(double scale) {
  int exponent;
  const double digits = std::nearbyint(std::frexp(scale, &exponent) * 0x1p24);
  if (digits == 0x1p24) return -exponent;
  return digits == 0x1p23 || scale > 1.0 ? 1 - exponent : -exponent;
}

inline LevelRule level_rule(const double* scales, int64_t levels, double canonical_scale, int64_t canonical_level) {
  constexpr double slack = 0x1.ffffd17bd492fp-1;  // 2^-2e-6: the 1e-6 of the formula
  double t[kMaxLevels];
  const int64_t finest = level_number(scales[0]), coarsest = level_number(scales[levels - 1]);
  for (int64_t i = 0; i < kMaxLevels; ++i) {
    const int64_t power = 2 * (finest + i + 1 - canonical_level);
    const int limited = static_cast<int>(power < -1000 ? -1000 : power > 1000 ? 1000 : power);
    t[i] = i < coarsest - finest && i < levels ? canonical_scale * canonical_scale * std::ldexp(slack, limited) : NAN;
  }
  return {t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]};
}

// The level by area; kNoLevel past the last map. A box that is not finite gets any.
STRUCTOPS_HOST_DEVICE int level_of(const LevelRule& rule, int64_t levels, double x1, double y1, double x2, double y2) {
  const double area = (x2 - x1) * (y2 - y1);
  const int level = (area >= rule.t0) + (area >= rule.t1) + (area >= rule.t2) + (area >= rule.t3) + (area >= rule.t4) +
                    (area >= rule.t5) + (area >= rule.t6) + (area >= rule.t7);
  return level < levels ? level : kNoLevel;
}

}  // namespace structops
