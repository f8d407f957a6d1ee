// Cosine and sine of an angle in degrees, the same to the last bit on CPU and GPU.
//
// Double and without libm's sine, whose last bit differs from library to library: whatever is decided by them (a sample
// on the map's edge, an IoU at the threshold) must be decided alike everywhere.
#pragma once
#include <cmath>

#include "common/host_device.h"

namespace structops {

struct Rotation {
  double cos, sin;
};

// Reduced exactly, so that quarter turns are exact for every angle; then Taylor's series on [-45, 45] degrees, whose
// remainders are below 1e-17.
STRUCTOPS_HOST_DEVICE Rotation rotation(double degrees) {
  const double turn = fmod(degrees, 360.0);
  const double quarters = floor(turn / 90.0 + 0.5);
  const double x = (turn - 90.0 * quarters) * 0.017453292519943295, x2 = x * x;
  double s = 1.0 / 355687428096000.0, c = 1.0 / 20922789888000.0;
  s = s * x2 - 1.0 / 1307674368000.0;
  s = s * x2 + 1.0 / 6227020800.0;
  s = s * x2 - 1.0 / 39916800.0;
  s = s * x2 + 1.0 / 362880.0;
  s = s * x2 - 1.0 / 5040.0;
  s = s * x2 + 1.0 / 120.0;
  s = s * x2 - 1.0 / 6.0;
  s = x + x * (s * x2);
  c = c * x2 - 1.0 / 87178291200.0;
  c = c * x2 + 1.0 / 479001600.0;
  c = c * x2 - 1.0 / 3628800.0;
  c = c * x2 + 1.0 / 40320.0;
  c = c * x2 - 1.0 / 720.0;
  c = c * x2 + 1.0 / 24.0;
  c = c * x2 - 0.5;
  c = c * x2 + 1.0;
  const int quarter = static_cast<int>(quarters) & 3;
  if (quarter == 0) return {c, s};
  if (quarter == 1) return {-s, c};
  if (quarter == 2) return {-c, -s};
  return {s, -c};
}

}  // namespace structops
