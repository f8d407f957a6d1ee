// Cosine and sine of an angle in degrees, the same to the last bit on CPU and GPU.
//
// Double and without libm's sine, whose last bit differs from library to library: whatever is decided by them (a sample
// on the map's edge, an IoU at the threshold) must be decided alike everywhere.
#pragma once
#include <cmath>

#include "common/host_device.h"

namespace structops {

#include "common/sine_cosine.h"

struct Rotation {
  double cos, sin;
};

// Reduced exactly, so that quarter turns are exact for every angle.
STRUCTOPS_HOST_DEVICE Rotation rotation(double degrees) {
  const double turn = fmod(degrees, 360.0);
  const double quarters = floor(turn / 90.0 + 0.5);
  const double x = (turn - 90.0 * quarters) * 0.017453292519943295;
  double s, c;
  sine_cosine(x, s, c);
  const int quarter = static_cast<int>(quarters) & 3;
  if (quarter == 0) return {c, s};
  if (quarter == 1) return {-s, c};
  if (quarter == 2) return {-c, -s};
  return {s, -c};
}

}  // namespace structops
