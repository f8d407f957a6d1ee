// How COCO writes a run, on CPU and GPU alike: five bits a character from the lowest on, as many as a signed number
// needs, each but the last marked by a sixth bit, and 48 added to be printable.
//
// The number is the run's length, from the fourth run on less that of the run before the one before: edges of an object
// move little from one column to the next.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace structops {

constexpr int kMostCharacters = 7;  // of a difference of two numbers below 2^31

// Writes a number; returns what is behind it.
STRUCTOPS_HOST_DEVICE uint8_t* write_run(int64_t number, uint8_t* to) {
  for (;;) {
    const int64_t rest = number >> 5;
    const bool last = rest == (number & 0x10 ? -1 : 0);
    *to++ = static_cast<uint8_t>((number & 0x1f) + 48 + (last ? 0 : 0x20));
    if (last) return to;
    number = rest;
  }
}

STRUCTOPS_HOST_DEVICE int run_characters(int64_t number) {
  int characters = 1;
  for (; number < -16 || number > 15; number >>= 5) ++characters;
  return characters;
}

}  // namespace structops
