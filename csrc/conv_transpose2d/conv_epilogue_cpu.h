// What follows the sums of a transposed convolution, in vectors. Included once per instruction set, after
// common/cpu/vector_math.h.

template <class A>
inline Vec<A> absolute(Vec<A> x) {
  return x < 0 ? -x : x;
}

template <class A>
inline Vec<A> sigmoid(Vec<A> x) {
  const Vec<A> e = VectorMath<A>::exp(-absolute<A>(x)), one = broadcast(A(1));
  return (x < 0 ? e : one) / (one + e);
}

// The normal distribution's share below x, by erfc. In float: the Chebyshev fit of Press et al., "Numerical Recipes",
// 6.2, good to 1.2e-7 of erfc. In double one lane at a time: a fit to 1e-16 would have fifty coefficients, and nobody
// trains in double for speed.
inline Vec<float> normal_share(Vec<float> x) {
  constexpr float c[] = {0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                         -0.18628806f, 0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  const Vec<float> z = absolute<float>(x) * 0.70710678118654752440f, t = 1.0f / (1.0f + 0.5f * z);
  Vec<float> p = broadcast(c[0]);
  for (int i = 1; i < 10; ++i) p = multiply_add(p, t, broadcast(c[i]));
  const Vec<float> half_complement = 0.5f * t * VectorMath<float>::exp(p - z * z);
  return x < 0 ? half_complement : 1.0f - half_complement;
}
inline Vec<double> normal_share(Vec<double> x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = 0.5 * std::erfc(-x[i] * 0.70710678118654752440);
  return x;
}

template <Activation kKind, class A>
inline Vec<A> activate(Vec<A> x, A slope) {
  switch (kKind) {
    case Activation::relu:
      return x <= 0 ? Vec<A>{} : x;  // keeps NaN
    case Activation::leaky_relu:
      return x <= 0 ? x * slope : x;
    case Activation::gelu:
      return x * normal_share(x);
    case Activation::silu:
      return x * sigmoid<A>(x);
    case Activation::sigmoid:
      return sigmoid<A>(x);
    default:
      return x;
  }
}

// body(kind), a type for each activation: one switch for a tile of outputs: for each pixel of 24 channels it would cost
// as much as they do.
template <class Body>
inline void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::relu:
      return body(std::integral_constant<Activation, Activation::relu>{});
    case Activation::leaky_relu:
      return body(std::integral_constant<Activation, Activation::leaky_relu>{});
    case Activation::gelu:
      return body(std::integral_constant<Activation, Activation::gelu>{});
    case Activation::silu:
      return body(std::integral_constant<Activation, Activation::silu>{});
    case Activation::sigmoid:
      return body(std::integral_constant<Activation, Activation::sigmoid>{});
    default:
      return body(std::integral_constant<Activation, Activation::none>{});
  }
}

// Of `count` (at most a vector's lanes) outputs side by side; residual: theirs, or null.
template <Activation kKind, class S, class A>
inline void finish(const Epilogue<S, A>& e, Vec<A> sum, Vec<A> scale, Vec<A> offset, const S* residual, S* out,
                   int64_t count) {
  const bool whole = count >= kLanes<A>;
  Vec<A> x = multiply_add(sum, scale, offset);
  if (residual == nullptr) {
    x = activate<kKind>(x, e.negative_slope);
  } else {
    const Vec<A> added = whole ? load(residual) : load_part(residual, count);
    x = e.residual_last ? activate<kKind>(x, e.negative_slope) + added : activate<kKind>(x + added, e.negative_slope);
  }
  whole ? store(out, x) : store_part(out, x, count);
}

// Consecutive channels of one pixel.
template <Activation kKind, class S, class A>
inline void finish_channels(const Epilogue<S, A>& e, const A* sums, int64_t channel, int64_t count, const S* residual,
                            S* out) {
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const int64_t rest = count - i;
    const auto get = [rest](const A* p) { return rest >= kLanes<A> ? load(p) : load_part(p, rest); };
    finish<kKind>(e, get(sums + i), e.scale ? get(e.scale + channel + i) : broadcast(A(1)),
                  e.offset ? get(e.offset + channel + i) : Vec<A>{}, residual ? residual + i : nullptr, out + i, rest);
  }
}

// Consecutive pixels of one channel.
template <Activation kKind, class S, class A>
inline void finish_row(const Epilogue<S, A>& e, const A* sums, int64_t channel, int64_t count, const S* residual,
                       S* out) {
  const Vec<A> scale = broadcast(e.scale ? e.scale[channel] : A(1));
  const Vec<A> offset = broadcast(e.offset ? e.offset[channel] : A(0));
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const int64_t rest = count - i;
    finish<kKind>(e, rest >= kLanes<A> ? load(sums + i) : load_part(sums + i, rest), scale, offset,
                  residual ? residual + i : nullptr, out + i, rest);
  }
}
