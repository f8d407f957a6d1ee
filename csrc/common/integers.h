// Arithmetic of whole numbers.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace structops {

// The largest number not above a / b, for b > 0: C++ rounds toward 0.
STRUCTOPS_HOST_DEVICE int64_t floor_divide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

}  // namespace structops
