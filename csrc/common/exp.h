// An exponential that every backend rounds alike: multiplications, additions and one shift of bits, in this order, in
// the reference (structops/reference/_exp.py), in Triton (triton_kernels/_exp.py), in vectors and on the GPU. torch's
// own exp differs in the last bit between machines and devices, and where a score decides what is taken next, one bit
// can change everything after it.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/host_device.h"

namespace structops {

template <class T>
using FloatBits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// e^x for x <= 0, within 1.5 units in the last place; 0 where that is below the normal numbers. V is T, float or
// double, or a vector of T; B its bits.
template <class T, class V, class B>
STRUCTOPS_HOST_DEVICE V exp_of_negative(V x) {
  constexpr bool wide = sizeof(T) == 8;
  constexpr T lowest = T(wide ? -708 : -87), log2_e = T(1.44269504088896340736);
  // ln 2 in two parts: the first has few bits, so that its products with whole numbers are exact.
  constexpr T ln2_high = T(wide ? 6.93145751953125e-1 : 0.693359375);
  constexpr T ln2_low = T(wide ? 1.42860682030941723212e-6 : -2.12194440e-4);
  constexpr T shifter = T(wide ? 6755399441055744.0 : 12582912.0);  // added: rounds to a whole number, in the low bits
  constexpr int mantissa = wide ? 52 : 23;
  constexpr FloatBits<T> bias = wide ? 1023 : 127;

  const V zero{};
  const V clamped = x < lowest ? zero + lowest : x;
  const V shifted = clamped * log2_e + shifter;
  const V n = shifted - shifter;
  const V r = (clamped - n * ln2_high) - n * ln2_low;
  V p;
  if constexpr (wide) {
    p = r * T(1.0 / 6227020800) + T(1.0 / 479001600);
    p = p * r + T(1.0 / 39916800);
    p = p * r + T(1.0 / 3628800);
    p = p * r + T(1.0 / 362880);
    p = p * r + T(1.0 / 40320);
    p = p * r + T(1.0 / 5040);
  } else {
    p = zero + T(1.0 / 5040);
  }
  p = p * r + T(1.0 / 720);
  p = p * r + T(1.0 / 120);
  p = p * r + T(1.0 / 24);
  p = p * r + T(1.0 / 6);
  p = p * r + T(1.0 / 2);
  p = p * r + T(1);
  p = p * r + T(1);
  B bits;
  memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << mantissa) + (bias << mantissa);
  V power;
  memcpy(&power, &bits, sizeof(power));
  return x < lowest ? zero : p * power;
}

}  // namespace structops
