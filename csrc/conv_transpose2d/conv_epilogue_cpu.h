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
  constexpr float c[] = {0.17087277f, -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                         -0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f, -1.26551223f};
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

template <class A>
inline Vec<A> activate(Vec<A> x, Activation activation, A slope) {
  switch (activation) {
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

// `residual` is that of these outputs, or zero.
template <class S, class A>
inline Vec<A> finish(const Epilogue<S, A>& e, Vec<A> sum, Vec<A> scale, Vec<A> offset, Vec<A> residual) {
  const Vec<A> x = multiply_add(sum, scale, offset);
  return e.residual_last ? activate<A>(x, e.activation, e.negative_slope) + residual
                         : activate<A>(x + residual, e.activation, e.negative_slope);
}

// Consecutive outputs, with numbers of their own or (planar) one for all. Writes `count` elements to out.
template <class S, class A>
inline void finish_channels(const Epilogue<S, A>& e, const A* sums, int64_t channel, int64_t count, const S* residual,
                            S* out) {
  constexpr int64_t n = kLanes<A>;
  const auto some = [&](int64_t i, auto get, auto put) {
    const Vec<A> scale = e.scale ? get(e.scale + channel + i) : broadcast(A(1));
    const Vec<A> offset = e.offset ? get(e.offset + channel + i) : Vec<A>{};
    put(out + i, finish(e, get(sums + i), scale, offset, residual ? get(residual + i) : Vec<A>{}));
  };
  int64_t i = 0;
  for (; i + n <= count; i += n)
    some(i, [](const auto* p) { return load(p); }, [](S* p, Vec<A> v) { store(p, v); });
  if (const int64_t rest = count - i)
    some(i, [&](const auto* p) { return load_part(p, rest); }, [&](S* p, Vec<A> v) { store_part(p, v, rest); });
}
template <class S, class A>
inline void finish_row(const Epilogue<S, A>& e, const A* sums, int64_t channel, int64_t count, const S* residual, S* out) {
  constexpr int64_t n = kLanes<A>;
  const Vec<A> scale = broadcast(e.scale ? e.scale[channel] : A(1));
  const Vec<A> offset = broadcast(e.offset ? e.offset[channel] : A(0));
  int64_t i = 0;
  for (; i + n <= count; i += n)
    store(out + i, finish(e, load(sums + i), scale, offset, residual ? load(residual + i) : Vec<A>{}));
  if (const int64_t rest = count - i)
    store_part(out + i,
               finish(e, load_part(sums + i, rest), scale, offset, residual ? load_part(residual + i, rest) : Vec<A>{}),
               rest);
}
