// exp, log1p and powers of vectors, to about two units in the last place.
//
// Included once per instruction set inside its namespace, after common/cpu/vec.h. Numbers below the smallest normal one
// count as zero. Series are Taylor's, cut where the next term is below half a unit in the last place: their
// coefficients need no table, and a minimax polynomial would save one or two of eight terms.

template <class A>
struct Format;
template <>
struct Format<float> {
  using Int = int32_t;
  static constexpr int digits = 23, bias = 127, exp_terms = 7, log1p_terms = 8, log_terms = 5;
  static constexpr float round = 0x1.8p23f;  // added to a number, leaves its integer in the low bits
  static constexpr float lowest = -88.0f;    // exp is zero from here on
  // high has so few digits that its products with exponents are exact
  static constexpr float ln2_high = 0x1.63p-1f, ln2_low = -2.12194440054690583e-4f;
  static constexpr Int root_half = 0x3f3504f3;  // the bits of sqrt(1/2)
};
template <>
struct Format<double> {
  using Int = int64_t;
  static constexpr int digits = 52, bias = 1023, exp_terms = 13, log1p_terms = 17, log_terms = 11;
  static constexpr double round = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e4p-1, ln2_low = 1.42860682030941723212e-6;
  static constexpr double lowest = -709.0;
  static constexpr Int root_half = 0x3fe6a09e667f3bcd;
};

template <class A>
struct IntsOf {
  typedef typename Format<A>::Int type __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
};
template <class A>
using Ints = typename IntsOf<A>::type;

template <class A>
struct VectorMath {
  using V = Vec<A>;
  using F = Format<A>;
  static constexpr A kLog2E = A(1.44269504088896340736), kLn2 = A(0.693147180559945309417);

  // exp of |r| <= ln(2) / 2 or a little more.
  static V exp_series(V r) {
    A factorial = 1;
    for (int k = 2; k <= F::exp_terms; ++k) factorial *= A(k);
    V sum = broadcast(A(1) / factorial);
    for (int k = F::exp_terms; k > 0; --k) sum = multiply_add(sum, r, broadcast(A(1) / (factorial /= A(k))));
    return sum;
  }
  // 2^n, of n + Format::round; -bias gives zero.
  static V power_of_two(V rounded) {
    return (V)(((Ints<A>)rounded << F::digits) + (typename F::Int(F::bias) << F::digits));
  }
  // 2 atanh(s), of |s| <= 1/3 with log1p_terms and |s| <= 0.172 with log_terms.
  template <int kTerms>
  static V twice_atanh(V s) {
    const V square = s * s;
    V sum = broadcast(A(2) / A(2 * kTerms + 1));
    for (int k = kTerms - 1; k >= 0; --k) sum = multiply_add(sum, square, broadcast(A(2) / A(2 * k + 1)));
    return s * sum;
  }

  // x <= 0, or NaN.
  static V exp(V x) {
    x = max(broadcast(F::lowest), x);
    const V rounded = multiply_add(x, broadcast(kLog2E), broadcast(F::round)), n = rounded - F::round;
    const V r = multiply_add(n, broadcast(-F::ln2_low), multiply_add(n, broadcast(-F::ln2_high), x));
    return exp_series(r) * power_of_two(rounded);
  }
  static V divide(V a, V b) { return a / b; }
  // e in [0, 1], or NaN.
  static V log1p(V e) { return twice_atanh<F::log1p_terms>(e / (e + A(2))); }
};

// x^gamma for x in [0, 1] and gamma >= 0: 2^(gamma (k + log2 f)) with x = 2^k f. gamma is cut in two, so that its high
// part times k is exact and the integer of the exponent is split off before anything is rounded: otherwise
// 1e-30^1.5 could be off by 40 units in the last place.
template <class A>
struct PowerMath : VectorMath<A> {
  using typename VectorMath<A>::V;
  using typename VectorMath<A>::F;
  static constexpr bool square = false;
  V largest = broadcast(std::numeric_limits<A>::max());
  A gamma, high, low, of_zero;

  explicit PowerMath(double gamma_) : gamma(static_cast<A>(gamma_)), of_zero(gamma == 0 ? 1 : 0) {
    typename F::Int bits;
    std::memcpy(&bits, &gamma, sizeof bits);
    bits &= ~((typename F::Int(1) << (F::digits / 2)) - 1);
    std::memcpy(&high, &bits, sizeof bits);
    low = gamma - high;
  }

  V power(V x) const {
    const Ints<A> bits = (Ints<A>)x, exponent = (bits - F::root_half) >> F::digits;
    const V k = __builtin_convertvector(exponent, V), f = (V)(bits - (exponent << F::digits));
    const V log2 = this->template twice_atanh<F::log_terms>((f - A(1)) / (f + A(1))) * this->kLog2E;
    const V head = k * high, tail = multiply_add(k, broadcast(low), log2 * gamma);
    const V bound = broadcast(A(F::bias)), most = broadcast(A(1));
    const V rounded = min(max(head + tail, -bound), bound) + F::round;
    const V fraction = min(max((head - (rounded - F::round)) + tail, -most), most);
    const V result = this->exp_series(fraction * this->kLn2) * this->power_of_two(rounded);
    return x == V{} ? broadcast(of_zero) : result;
  }
};

template <class A>
struct SquareMath : VectorMath<A> {
  using typename VectorMath<A>::V;
  static constexpr bool square = true;
  V largest = broadcast(std::numeric_limits<A>::max());

  explicit SquareMath(double) {}
  V power(V x) const { return x * x; }
};
