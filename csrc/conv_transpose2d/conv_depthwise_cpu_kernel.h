// Depthwise transposed convolution, for any stride: outputs side by side share vectors, whatever phases and channels
// they belong to. Included once per instruction set.
//
// A row of NHWC is a row of single numbers too, if everything along it is counted in numbers: with C channels, its
// strides are C times as long. `side` numbers make up a pixel: C of them, or one in NCHW.
//
// A row of inputs is stretched first, each pixel repeated `stride` times, and serves every output row that it reaches:
// 16 of a bilinear kernel of stride 8. An output is then at the same place of each stretched row as the pixel it reads,
// a whole number of strides to the left for the taps of later offsets, and its weights are a pattern that repeats every
// `stride` pixels. So a vector of outputs of that kernel is 4 multiply-adds of loaded pixels by loaded weights. As
// products of depth one, by the matrix engine, it takes several times as long.

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

// Rows of outputs that read the same pixels, `kRows` of them at once: sums of stretched rows times the weights of the
// kernel's row that meets each. They go from registers to the output; by way of a row of sums it took half as long
// again.
//
// Registers hold kRows x kTogether vectors of sums: one load of pixels serves all rows, one of weights all vectors of a
// row, so there are fewer loads than multiply-adds. Row by row there are more, and a bilinear kernel of stride 8 takes
// twice as long.
constexpr int64_t kTogether = kTileVectors;  // as many as a tile of the matrix engine
constexpr int64_t kMostRows = 4;

template <class S, class A>
struct DepthwiseRows {
  static constexpr int64_t n = kLanes<A>;
  // A row's pixels that an offset finds, and their weights in each row of outputs.
  struct Term {
    const A *pixels, *weights[kMostRows];
    size_t offset;
  };
  // Of the first row; the others follow.
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

  explicit DepthwiseRows(const RowAxis& along) : axis(along) {
    while (cycle * n % axis.stride) ++cycle;
  }

  // What a stretched row adds; weights(r) is the row of the kernel's weights that the r'th row of outputs meets it
  // with.
  template <class Weights>
  void add(std::vector<Term>& terms, const A* pixels, int64_t rows, const Weights& weights) const {
    for (size_t t = 0; t < taps.offsets.size(); ++t) {
      Term term{pixels - taps.offsets[t] * axis.stride, {}, t};
      for (int64_t r = 0; r < rows; ++r)
        term.weights[r] = weights(r) + static_cast<int64_t>(t) * pattern_length<A>(axis);
      terms.push_back(term);
    }
  }

  template <Activation kKind, int64_t kRows>
  void run(const std::vector<Term>& terms, const Output& to) const {
    const int64_t all = (axis.out + n - 1) / n;
    range<kKind, kRows, Lacking::taps_and_pixels>(terms, 0, masks.begin, to);
    if (taps.complete)
      range<kKind, kRows, Lacking::nothing>(terms, masks.begin, masks.end, to);
    else
      range<kKind, kRows, Lacking::taps>(terms, masks.begin, masks.end, to);
    range<kKind, kRows, Lacking::taps_and_pixels>(terms, masks.end, all, to);
  }

 private:
  // Some outputs may lack a tap; and some a pixel, or there are fewer than a vector of them.
  enum class Lacking { nothing, taps, taps_and_pixels };

  // Vectors from v to `end`.
  template <Activation kKind, int64_t kRows, Lacking kLacking>
  void range(const std::vector<Term>& terms, int64_t v, int64_t end, const Output& to) const {
    if (v == end) return;
    int64_t phase = (v * n + axis.padding) % axis.stride;
    const auto next = [&] {
      ++v, phase += step;
      if (phase >= axis.stride) phase -= axis.stride;
    };
    while (kLacking != Lacking::taps_and_pixels && v + kTogether * cycle <= end) {
      for (const int64_t same = v + cycle; v < same; next())
        vectors<kKind, kRows, kLacking, kTogether>(terms, v, phase, to);
      v += (kTogether - 1) * cycle;
    }
    for (; v < end; next()) vectors<kKind, kRows, kLacking, 1>(terms, v, phase, to);
  }

  // kCount vectors from the v-th on, a cycle apart: phase is that of their first outputs.
  template <Activation kKind, int64_t kRows, Lacking kLacking, int64_t kCount>
  void vectors(const std::vector<Term>& terms, int64_t v, int64_t phase, const Output& to) const {
    const int64_t x = v * n, apart = cycle * n, width = axis.out, rest = width - x;
    Vec<A> sum[kRows][kCount] = {};
    for (const Term& term : terms) {
      using Lanes = typename RowMasks<A>::Lanes;
      Lanes lanes{};
      if constexpr (kLacking == Lacking::taps) lanes = masks.within(term.offset, phase);
      if constexpr (kLacking == Lacking::taps_and_pixels) lanes = masks.edge(term.offset, v);
      Vec<A> factor[kRows];
      STRUCTOPS_UNROLL
      for (int64_t r = 0; r < kRows; ++r) {
        factor[r] = load(term.weights[r] + phase);
        if constexpr (kLacking != Lacking::nothing) factor[r] = (Vec<A>)((Lanes)factor[r] & lanes);
      }
      STRUCTOPS_UNROLL
      for (int64_t i = 0; i < kCount; ++i) {
        Vec<A> pixels = load(term.pixels + x + i * apart);
        if constexpr (kLacking != Lacking::nothing) pixels = (Vec<A>)((Lanes)pixels & lanes);
        STRUCTOPS_UNROLL
        for (int64_t r = 0; r < kRows; ++r) sum[r][i] = multiply_add(pixels, factor[r], sum[r][i]);
      }
    }
    const Vec<A> scale = load(to.affine.scale() + phase), offset = load(to.affine.offset() + phase);
    const bool part = kLacking == Lacking::taps_and_pixels && rest < n;
    const Epilogue<S, A> e = to.epilogue;  // a copy: after a store, the original would be read again
    const S* const residual = to.residual;
    S* const out = to.out;
    STRUCTOPS_UNROLL
    for (int64_t r = 0; r < kRows; ++r) {
      STRUCTOPS_UNROLL
      for (int64_t i = 0; i < kCount; ++i) {
        const int64_t o = r * width + x + i * apart;
        const Vec<A> done = residual ? finished<kKind>(e, sum[r][i], scale, offset,
                                                       part ? load_part(residual + o, rest) : load(residual + o))
                                     : finished<kKind>(e, sum[r][i], scale, offset);
        part ? store_part(out + o, done, rest) : store(out + o, done);
      }
    }
  }
};

template <class S>
void depthwise(const ConvTransposeParams& p, const S* input, bool planar, const S* weight, const WeightStrides& strides,
               const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  using A = acc_t<S>;
  const int64_t side = planar ? 1 : p.out_channels, maps = p.out_channels / side;  // of an image
  const DepthwiseRows<S, A> along({horizontal(p), side});
  const auto groups = phase_groups(vertical(p), false);
  const auto rows = output_taps(groups, vertical(p));
  const int64_t reach = (p.kernel_height - 1) * p.dilation_height / p.stride_height + 1;
  // Bands so high that stretching the rows that two of them share costs little, but some of them.
  constexpr int64_t kFewestItems = 8;
  int64_t band = std::max<int64_t>(4 * reach * p.stride_height, 16);
  if (p.batch * maps < kFewestItems)
    band = std::min(band, std::max(reach * p.stride_height, p.out_height / kFewestItems));
  band = std::min(band, p.out_height);
  const int64_t bands = (p.out_height + band - 1) / band, items = p.batch * maps * bands;
  const double reads =
      double(along.taps.offsets.size()) * double(p.kernel_height) / double(p.stride_height);  // of a vector
  share(parallel_for, workers_for(double(items * band) * double(along.axis.out) / kLanes<A> * (reads + 1)), items, 1,
        [&](ItemQueue& queue) {
          RowWeights<A> weights(along.axis, p.kernel_height, along.taps);
          RowAffine<A> affine(along.axis);
          StretchedRows<A> stretched(along.axis, std::min(reach, p.height), along.taps.offsets.back());
          std::vector<typename DepthwiseRows<S, A>::Term> terms;
          int64_t held = -1;  // the channel whose weights are prepared
          for (int64_t item, end; queue.take(item, end);) {
            const int64_t map = item / bands, channel = map % maps, first = item % bands * band;
            const S* pixels = input + map * p.height * p.width * side;
            if (std::exchange(held, channel) != channel) {
              weights.prepare(weight + channel * strides.in, strides);
              affine.prepare(e, channel);
            }
            stretched.forget();
            const int64_t last = std::min(first + band, p.out_height);
            for (int64_t oy = first, count; oy < last; oy += count) {
              const OutputTaps* ys = rows.data() + oy;
              const auto reads_the_same = [&](int64_t r) { return ys[r].group == ys[0].group && ys[r].q == ys[0].q; };
              for (count = 1; count < std::min(last - oy, kMostRows) && reads_the_same(count);) ++count;
              if (count == 3) count = 2;
              terms.clear();
              for (size_t t = 0; t < ys->group->offsets.size(); ++t) {
                const int64_t iy = ys->q - ys->group->offsets[t];
                if (iy >= 0 && iy < p.height)
                  along.add(terms, stretched.get(pixels, iy), count,
                            [&](int64_t r) { return weights.row(ys[r].group->taps[ys[r].phase][t]); });
              }
              const int64_t o = (map * p.out_height + oy) * along.axis.out;
              const typename DepthwiseRows<S, A>::Output to{e, affine, e.residual ? e.residual + o : nullptr, out + o};
              with_activation(e.activation, [&](auto kind) {
                count == 1   ? along.template run<kind(), 1>(terms, to)
                : count == 2 ? along.template run<kind(), 2>(terms, to)
                             : along.template run<kind(), kMostRows>(terms, to);
              });
            }
          }
        });
}
