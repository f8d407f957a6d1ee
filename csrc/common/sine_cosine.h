// Taylor's series of sine and cosine on [-pi / 4, pi / 4], whose remainders are below 1e-17; for V = double, or for a
// vector of doubles. Included within a namespace, once per instruction set where vectors are meant
// (common/cpu/foreach_isa.h says why): no include guard.

template <class V>
STRUCTOPS_HOST_DEVICE void sine_cosine(V x, V& s, V& c) {
  const V x2 = x * x;
  s = V{} + 1.0 / 355687428096000.0;
  c = V{} + 1.0 / 20922789888000.0;
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
}
