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

// A vector of outputs.
template <Activation kKind, class S, class A>
inline Vec<A> finished(const Epilogue<S, A>& e, Vec<A> sum, Vec<A> scale, Vec<A> offset) {
  return activate<kKind>(multiply_add(sum, scale, offset), e.negative_slope);
}
template <Activation kKind, class S, class A>
inline Vec<A> finished(const Epilogue<S, A>& e, Vec<A> sum, Vec<A> scale, Vec<A> offset, Vec<A> residual) {
  const Vec<A> x = multiply_add(sum, scale, offset);
  return e.residual_last ? activate<kKind>(x, e.negative_slope) + residual
                         : activate<kKind>(x + residual, e.negative_slope);
}

// `count` outputs side by side, with affine(i) the scales and offsets from the i'th on. Few branches: a vector of a
// short depth is no more than 24 multiply-adds.
template <Activation kKind, class S, class A, class Affine>
inline void finish_side_by_side(const Epilogue<S, A>& e, const A* sums, const Affine& affine, int64_t count,
                                const S* residual, S* out) {
  constexpr int64_t n = kLanes<A>;
  int64_t i = 0;
  if (residual == nullptr) {
    for (; i + n <= count; i += n) {
      const auto [scale, offset] = affine(i);
      store(out + i, finished<kKind>(e, load(sums + i), scale, offset));
    }
  } else {
    for (; i + n <= count; i += n) {
      const auto [scale, offset] = affine(i);
      store(out + i, finished<kKind>(e, load(sums + i), scale, offset, load(residual + i)));
    }
  }
  if (i == count) return;
  const int64_t rest = count - i;
  const auto [scale, offset] = affine(i);
  const Vec<A> sum = load_part(sums + i, rest);
  store_part(out + i,
             residual == nullptr ? finished<kKind>(e, sum, scale, offset)
                                 : finished<kKind>(e, sum, scale, offset, load_part(residual + i, rest)),
             rest);
}

// Consecutive channels of a pixel (or pixels), each with its scale and offset, which can be read a vector beyond the
// last.
template <Activation kKind, class S, class A>
inline void finish_channels(const Epilogue<S, A>& e, const A* sums, const A* scale, const A* offset, int64_t count,
                            const S* residual, S* out) {
  finish_side_by_side<kKind>(
      e, sums, [=](int64_t i) { return std::pair(load(scale + i), load(offset + i)); }, count, residual, out);
}

// Consecutive pixels of one channel.
template <Activation kKind, class S, class A>
inline void finish_row(const Epilogue<S, A>& e, const A* sums, int64_t channel, int64_t count, const S* residual,
                       S* out) {
  const Vec<A> scale = broadcast(e.scale ? e.scale[channel] : A(1));
  const Vec<A> offset = broadcast(e.offset ? e.offset[channel] : A(0));
  finish_side_by_side<kKind>(e, sums, [=](int64_t) { return std::pair(scale, offset); }, count, residual, out);
}
