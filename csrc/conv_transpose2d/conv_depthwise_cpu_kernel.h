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

// Along a row, in pixels and in numbers.
struct RowAxis {
  Axis pixels;
  int64_t side;
  int64_t stride = pixels.stride * side, padding = pixels.padding * side, out = pixels.out * side;
};

// What the outputs of a row read: at most one tap for each offset, at the place of the output's phase.
struct RowTaps {
  struct Tap {
    size_t offset;          // index into offsets
    int64_t phase, kernel;  // of the output's pixel; index into the kernel's row
  };
  std::vector<int64_t> offsets;  // in strides, ascending
  std::vector<Tap> taps;
  bool complete;  // each phase has a tap for each offset

  explicit RowTaps(const Axis& axis) {
    for (int64_t k = 0; k < axis.kernel; ++k) {
      const int64_t offset = k * axis.dilation / axis.stride;
      if (offsets.empty() || offsets.back() != offset) offsets.push_back(offset);
      taps.push_back({offsets.size() - 1, k * axis.dilation % axis.stride, k});
    }
    complete = taps.size() == offsets.size() * static_cast<size_t>(axis.stride);
  }
};

// Numbers in a pattern, aligned.
template <class A>
inline int64_t pattern_length(const RowAxis& axis) {
  return (axis.stride + 2 * kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

// The weights of a pixel's channels, each row of the kernel as one pattern for each offset; an output at o + padding =
// u finds those of a vector from place u % stride on.
template <class A>
class RowWeights {
 public:
  RowWeights(const RowAxis& axis, int64_t rows, const RowTaps& taps)
      : taps_(taps), side_(axis.side), stride_(axis.stride), length_(pattern_length<A>(axis)), rows_(rows) {
    std::fill_n(memory_.at_least(at(rows, 0)), at(rows, 0), A(0));
  }

  template <class S>
  void prepare(const S* of_channel, const WeightStrides& strides) {
    for (int64_t y = 0; y < rows_; ++y)
      for (const auto& tap : taps_.taps) {
        const S* from = of_channel + y * strides.y + tap.kernel * strides.x;
        A* to = memory_.get() + at(y, tap.offset) + tap.phase * side_;
        for (int64_t c = 0; c < side_; ++c) to[c] = static_cast<A>(from[c * strides.in]);
      }
    for (int64_t first = 0; first < at(rows_, 0); first += length_)
      for (A *to = memory_.get() + first + stride_, *end = to + kLanes<A>; to < end; ++to) *to = to[-stride_];
  }

  const A* row(int64_t y) const { return memory_.get() + at(y, 0); }

 private:
  int64_t at(int64_t y, size_t offset) const {
    return (y * static_cast<int64_t>(taps_.offsets.size()) + static_cast<int64_t>(offset)) * length_;
  }

  const RowTaps& taps_;
  const int64_t side_, stride_, length_, rows_;
  Scratch<A> memory_;  // zero where a phase has no tap
};

// For each offset, which outputs of a row have both a tap and a pixel there: all bits of a lane, or none. Zero times an
// infinity beside the image, or between the taps of a dilated kernel, would be a NaN.
template <class A>
class RowMasks {
 public:
  using Lane = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  typedef Lane Lanes __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
  int64_t begin = 0, end = 0;  // whole vectors of outputs for which every tap has its pixel

  RowMasks(const RowAxis& axis, const RowTaps& taps)
      : length_(pattern_length<A>(axis)), offsets_(static_cast<int64_t>(taps.offsets.size())) {
    const int64_t pixels = axis.pixels.in * axis.stride, all = (axis.out + n - 1) / n;
    const int64_t first = std::max<int64_t>(taps.offsets.back() * axis.stride - axis.padding, 0);
    const int64_t last = std::min(taps.offsets.front() * axis.stride + pixels - axis.padding, axis.out);
    begin = std::min((first + n - 1) / n, all), end = std::max(last / n, begin);
    taps_.resize(static_cast<size_t>(offsets_ * length_));
    for (const auto& tap : taps.taps)
      for (int64_t i = tap.phase * axis.side; i < length_; i += axis.stride)
        std::fill_n(taps_.data() + static_cast<int64_t>(tap.offset) * length_ + i, std::min(axis.side, length_ - i),
                    Lane(-1));
    edges_.reserve(static_cast<size_t>((begin + all - end) * offsets_ * n));
    for (int64_t v = 0; v < all; ++v) {
      if (v >= begin && v < end) continue;
      for (int64_t t = 0; t < offsets_; ++t)
        for (int64_t u = v * n + axis.padding; u < (v + 1) * n + axis.padding; ++u) {
          const int64_t from = u - taps.offsets[static_cast<size_t>(t)] * axis.stride;
          const Lane tap = taps_[static_cast<size_t>(t * length_ + u % axis.stride)];
          edges_.push_back(from >= 0 && from < pixels ? tap : Lane(0));
        }
    }
  }

  // Of taps, for a vector of outputs of which the first has this phase.
  Lanes within(size_t offset, int64_t phase) const {
    return get(taps_.data() + static_cast<int64_t>(offset) * length_ + phase);
  }

  // Of taps and pixels, for the v-th vector of outputs.
  Lanes edge(size_t offset, int64_t v) const {
    return get(edges_.data() + ((v < begin ? v : begin + v - end) * offsets_ + static_cast<int64_t>(offset)) * n);
  }

 private:
  static constexpr int64_t n = kLanes<A>;
  static Lanes get(const Lane* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
  }

  const int64_t length_, offsets_;
  std::vector<Lane> taps_, edges_;
};

// Rows of one map, stretched. The rows that an output row reads are `reach` at most from first to last, and the next
// output row reads the same or later ones: each finds its place modulo their number.
template <class A>
class StretchedRows {
 public:
  StretchedRows(const RowAxis& axis, int64_t reach, int64_t furthest)
      : axis_(axis), furthest_(furthest * axis.stride), held_(static_cast<size_t>(reach), -1) {
    constexpr int64_t n = kLanes<A>;
    // Zeros before the first pixel and after the last, as far as outputs look; those of the first output's own pixels
    // are aligned.
    const int64_t start = furthest_ + axis.padding;
    lead_ = (start + n - 1) / n * n - start + furthest_;
    const int64_t outputs = axis.out + axis.padding, pixels = axis.pixels.in * axis.stride;
    length_ = (lead_ + std::max(outputs, pixels) + 2 * n - 1) / n * n;
    rows_ = memory_.at_least(length_ * reach);
    std::fill_n(rows_, length_ * reach, A(0));
    together_ = n / axis.stride;
    for (int64_t i = 0; i < n; ++i)
      repeated_[i] =
          static_cast<typename RowMasks<A>::Lane>(std::min(i / axis.stride * axis.side + i % axis.side, n - 1));
  }

  void forget() { std::fill(held_.begin(), held_.end(), -1); }

  // Row y of the map, at the place where the first output finds the pixel of offset 0.
  template <class S>
  const A* get(const S* map, int64_t y) {
    const size_t place = static_cast<size_t>(y) % held_.size();
    A* row = rows_ + static_cast<int64_t>(place) * length_ + lead_;
    if (std::exchange(held_[place], y) != y) stretch(map + y * axis_.pixels.in * axis_.side, row);
    return row + axis_.padding;
  }

 private:
  // What a vector writes beyond its pixels' places, the next ones overwrite, and masks hide after the last.
  template <class S>
  void stretch(const S* row, A* to) const {
    constexpr int64_t n = kLanes<A>;
    const int64_t side = axis_.side, count = axis_.pixels.in * side;
    const auto some = [&](int64_t i) { return count - i >= n ? load(row + i) : load_part(row + i, count - i); };
    if (together_ > 0) {
      const int64_t step = together_ * side;
      for (int64_t i = 0; i < count; i += step, to += together_ * axis_.stride)
        store(to, __builtin_shuffle(some(i), repeated_));
      return;
    }
    for (int64_t i = 0; i < count; i += side, to += axis_.stride)
      for (int64_t place = 0; place < axis_.stride; place += side)
        for (int64_t c = 0; c < side; c += n) store(to + place + c, some(i + c));
  }

  const RowAxis axis_;
  const int64_t furthest_;
  int64_t together_;                      // pixels that are stretched in one vector
  typename RowMasks<A>::Lanes repeated_;  // which of its numbers are where
  int64_t lead_ = 0, length_ = 0;
  std::vector<int64_t> held_;
  Scratch<A> memory_;
  A* rows_ = nullptr;
};

// Scale and offset of outputs, as patterns like the weights'.
template <class A>
class RowAffine {
 public:
  explicit RowAffine(const RowAxis& axis) : side_(axis.side), length_(pattern_length<A>(axis)) {
    scale_.assign(static_cast<size_t>(length_), A(1));
    offset_.assign(static_cast<size_t>(length_), A(0));
  }

  // Of the channels from `first` on.
  template <class S>
  void prepare(const Epilogue<S, A>& e, int64_t first) {
    for (size_t i = 0; i < scale_.size(); ++i) {
      const int64_t channel = first + static_cast<int64_t>(i) % side_;
      if (e.scale) scale_[i] = e.scale[channel];
      if (e.offset) offset_[i] = e.offset[channel];
    }
  }

  const A* scale() const { return scale_.data(); }
  const A* offset() const { return offset_.data(); }

 private:
  const int64_t side_, length_;
  std::vector<A> scale_, offset_;
};

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
