// RoI Align on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
// clang-format off: the others are written with the first
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"
#include "common/cpu/weighted_sum.h"
// clang-format on

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

#include "roi_align/roi_align_cpu_backward.h"
#include "roi_align/roi_align_cpu_forward.h"
