// Thresholds that are doubles, compared with numbers that are not.
#pragma once
#include <cmath>
#include <limits>

namespace structops {

// The largest T that is not above the threshold: a T exceeds one if it exceeds the other.
template <class T>
T round_down(double threshold) {
  const T near = static_cast<T>(threshold);
  return near > threshold ? std::nextafter(near, -std::numeric_limits<T>::infinity()) : near;
}

}  // namespace structops
