// RoI Align of rotated boxes on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
// clang-format off: the others are written with the first
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"
#include "common/cpu/weighted_sum.h"
// clang-format on

// Channels apart: rows of bins go through a tile of this many bytes on their way between layouts.
constexpr int64_t kRotatedTileBytes = 65536;

#include "roi_align_rotated/roi_align_rotated_cpu_backward.h"
#include "roi_align_rotated/roi_align_rotated_cpu_forward.h"
