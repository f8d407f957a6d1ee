// Depthwise transposed convolution, for any stride: outputs side by side share vectors, whatever phases and channels
// they belong to. Included once per instruction set.
//
// A row of NHWC is a row of single numbers too, if everything along it is counted in numbers: with C channels, its
// strides are C times as long. `side` numbers make up a pixel: C of them, or one in NCHW.
//
// A row of inputs is stretched first, each pixel repeated `stride` times, and serves every output row that it reaches:
// 16 of a bilinear kernel of stride 8. An output is then at the same place of each stretched row as the pixel it reads,
// a whole number of strides to the left for the taps of later offsets, and its weights are a pattern that repeats every
// `stride` pixels. So a vector of outputs of that kernel is 4 multiply-adds of loaded pixels by weights that four
// vectors share: memory sets the pace. As products of depth one, by the matrix engine, it took three times as long.

#include "conv_transpose2d/conv_depthwise_row_cpu_kernel.h"

// The phase that an output's row belongs to, and its q.
struct OutputTaps {
  const PhaseGroup* group = nullptr;
  size_t phase = 0;
  int64_t q = 0;
};
inline std::vector<OutputTaps> output_taps(const std::vector<PhaseGroup>& groups, const Axis& axis) {
  std::vector<OutputTaps> found(static_cast<size_t>(axis.out));
  for (const PhaseGroup& group : groups)
    for (size_t i = 0; i < group.phases.size(); ++i)
      for (int64_t q = group.first; q < group.first + group.count; ++q) {
        const int64_t o = q * axis.stride + group.phases[i] - axis.padding;
        if (o >= 0 && o < axis.out) found[static_cast<size_t>(o)] = {&group, i, q};
      }
  return found;
}

// One row of outputs: sums of stretched rows times the weights of the kernel's row that meets each. They go from
// registers to the output; by way of a row of sums it took half as long again.
template <class S, class A>
struct DepthwiseRow {
  static constexpr int64_t n = kLanes<A>;
  static constexpr int64_t kTogether = 4;  // vectors that share a load of their weights
  // A row's pixels that an offset finds, and their weights.
  struct Term {
    const A *pixels, *weights;
    size_t offset;
  };
  struct Output {
    const Epilogue<S, A>& epilogue;
    const RowAffine<A>& affine;
    const S* residual;
    S* out;
  };
  const RowAxis axis;
  const RowTaps taps{axis.pixels};
  const RowMasks<A> masks{axis, taps};
  const int64_t step = n % axis.stride;  // from the phase of a vector to that of the next
  int64_t cycle = 1;                     // vectors after which the weights are the same

  explicit DepthwiseRow(const RowAxis& along) : axis(along) {
    while (cycle * n % axis.stride) ++cycle;
  }

  // What a stretched row adds, through a row of the kernel's weights.
  void add(std::vector<Term>& terms, const A* pixels, const A* weights) const {
    for (size_t t = 0; t < taps.offsets.size(); ++t)
      terms.push_back(
          {pixels - taps.offsets[t] * axis.stride, weights + static_cast<int64_t>(t) * pattern_length<A>(axis), t});
  }

  template <Activation kKind>
  void run(const std::vector<Term>& terms, const Output& to) const {
    const int64_t all = (axis.out + n - 1) / n;
    range<kKind, Lacking::taps_and_pixels>(terms, 0, masks.begin, to);
    if (taps.complete)
      range<kKind, Lacking::nothing>(terms, masks.begin, masks.end, to);
    else
      range<kKind, Lacking::taps>(terms, masks.begin, masks.end, to);
    range<kKind, Lacking::taps_and_pixels>(terms, masks.end, all, to);
  }

 private:
  // Some outputs may lack a tap; and some a pixel, or there are fewer than a vector of them.
  enum class Lacking { nothing, taps, taps_and_pixels };

  // Vectors from v to `end`.
  template <Activation kKind, Lacking kLacking>
  void range(const std::vector<Term>& terms, int64_t v, int64_t end, const Output& to) const {
    if (v == end) return;
    int64_t phase = (v * n + axis.padding) % axis.stride;
    const auto next = [&] {
      ++v, phase += step;
      if (phase >= axis.stride) phase -= axis.stride;
    };
    while (kLacking != Lacking::taps_and_pixels && v + kTogether * cycle <= end) {
      for (const int64_t same = v + cycle; v < same; next()) vectors<kKind, kLacking, kTogether>(terms, v, phase, to);
      v += (kTogether - 1) * cycle;
    }
    for (; v < end; next()) vectors<kKind, kLacking, 1>(terms, v, phase, to);
  }

  // kCount vectors from the v-th on, a cycle apart: phase is that of their first outputs.
  template <Activation kKind, Lacking kLacking, int64_t kCount>
  void vectors(const std::vector<Term>& terms, int64_t v, int64_t phase, const Output& to) const {
    const int64_t x = v * n, apart = cycle * n;
    Vec<A> sum[kCount] = {};
    for (const Term& term : terms) {
      using Lanes = typename RowMasks<A>::Lanes;
      Vec<A> factor = load(term.weights + phase);
      Lanes lanes{};
      if constexpr (kLacking == Lacking::taps) lanes = masks.within(term.offset, phase);
      if constexpr (kLacking == Lacking::taps_and_pixels) lanes = masks.edge(term.offset, v);
      if constexpr (kLacking != Lacking::nothing) factor = (Vec<A>)((Lanes)factor & lanes);
      STRUCTOPS_UNROLL
      for (int64_t i = 0; i < kCount; ++i) {
        Vec<A> pixels = load(term.pixels + x + i * apart);
        if constexpr (kLacking != Lacking::nothing) pixels = (Vec<A>)((Lanes)pixels & lanes);
        sum[i] = multiply_add(pixels, factor, sum[i]);
      }
    }
    const Vec<A> scale = load(to.affine.scale() + phase), offset = load(to.affine.offset() + phase);
    const int64_t rest = axis.out - x;
    if (kLacking == Lacking::taps_and_pixels && rest < n) {
      const Vec<A> last = to.residual
                              ? finished<kKind>(to.epilogue, sum[0], scale, offset, load_part(to.residual + x, rest))
                              : finished<kKind>(to.epilogue, sum[0], scale, offset);
      return store_part(to.out + x, last, rest);
    }
    STRUCTOPS_UNROLL
    for (int64_t i = 0; i < kCount; ++i) {
      const int64_t o = x + i * apart;
      store(to.out + o, to.residual ? finished<kKind>(to.epilogue, sum[i], scale, offset, load(to.residual + o))
                                    : finished<kKind>(to.epilogue, sum[i], scale, offset));
    }
  }
};

template <class S>
void depthwise(const ConvTransposeParams& p, const S* input, bool planar, const S* weight, const WeightStrides& strides,
               const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  using A = acc_t<S>;
  const int64_t side = planar ? 1 : p.out_channels, maps = p.out_channels / side;  // of an image
  const DepthwiseRow<S, A> row({horizontal(p), side});
  const auto ys = phase_groups(vertical(p), false);
  const auto rows = output_taps(ys, vertical(p));
  const int64_t reach = (p.kernel_height - 1) * p.dilation_height / p.stride_height + 1;
  // Bands so high that stretching the rows that two of them share costs little, but some of them.
  constexpr int64_t kFewestItems = 8;
  int64_t band = std::max<int64_t>(4 * reach * p.stride_height, 16);
  if (p.batch * maps < kFewestItems)
    band = std::min(band, std::max(reach * p.stride_height, p.out_height / kFewestItems));
  band = std::min(band, p.out_height);
  const int64_t bands = (p.out_height + band - 1) / band, items = p.batch * maps * bands;
  const double reads =
      double(row.taps.offsets.size()) * double(p.kernel_height) / double(p.stride_height);  // of a vector
  share(parallel_for, workers_for(double(items * band) * double(row.axis.out) / kLanes<A> * (reads + 1)), items, 1,
        [&](ItemQueue& queue) {
          RowWeights<A> weights(row.axis, p.kernel_height, row.taps);
          RowAffine<A> affine(row.axis);
          StretchedRows<A> stretched(row.axis, std::min(reach, p.height), row.taps.offsets.back());
          std::vector<typename DepthwiseRow<S, A>::Term> terms;
          int64_t held = -1;  // the channel whose weights are prepared
          for (int64_t item, end; queue.take(item, end);) {
            const int64_t map = item / bands, channel = map % maps, first = item % bands * band;
            const S* pixels = input + map * p.height * p.width * side;
            if (std::exchange(held, channel) != channel) {
              weights.prepare(weight + channel * strides.in, strides);
              affine.prepare(e, channel);
            }
            stretched.forget();
            for (int64_t oy = first; oy < std::min(first + band, p.out_height); ++oy) {
              const OutputTaps& y = rows[static_cast<size_t>(oy)];
              terms.clear();
              for (size_t t = 0; t < y.group->offsets.size(); ++t) {
                const int64_t iy = y.q - y.group->offsets[t];
                if (iy >= 0 && iy < p.height)
                  row.add(terms, stretched.get(pixels, iy), weights.row(y.group->taps[y.phase][t]));
              }
              const int64_t o = (map * p.out_height + oy) * row.axis.out;
              with_activation(e.activation, [&](auto kind) {
                row.template run<kind()>(terms, {e, affine, e.residual ? e.residual + o : nullptr, out + o});
              });
            }
          }
        });
}
