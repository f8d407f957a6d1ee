// Depthwise transposed convolution of NCHW maps, for any stride: outputs side by side share vectors, whatever phases
// they belong to. Included once per instruction set, after conv_depthwise_cpu_kernel.h.
//
// A row of inputs is stretched first, each pixel repeated `stride` times, and serves every output row that it reaches:
// 16 of a bilinear kernel of stride 8. An output is then at the same place of each stretched row as the pixel it reads,
// a whole number of strides to the left for the taps of later offsets, and its weights are a pattern that repeats every
// `stride` outputs. So a vector of outputs of that kernel is 4 multiply-adds of loaded pixels by weights that four
// vectors share: memory sets the pace. As products of depth one, by the matrix engine, it took three times as long.

// What the outputs of a row read: at most one tap for each offset, at the place of the output's phase.
struct PlanarTaps {
  struct Tap {
    size_t offset;          // index into offsets
    int64_t phase, kernel;  // of the output; index into the kernel's row
  };
  std::vector<int64_t> offsets;  // in strides, ascending
  std::vector<Tap> taps;
  bool complete;  // each phase has a tap for each offset

  explicit PlanarTaps(const Axis& axis) {
    for (int64_t k = 0; k < axis.kernel; ++k) {
      const int64_t offset = k * axis.dilation / axis.stride;
      if (offsets.empty() || offsets.back() != offset) offsets.push_back(offset);
      taps.push_back({offsets.size() - 1, k * axis.dilation % axis.stride, k});
    }
    complete = taps.size() == offsets.size() * static_cast<size_t>(axis.stride);
  }
};

// The weights of one channel, each row of the kernel as one pattern for each offset; an output at o + padding = u finds
// those of a vector from place u % stride on.
template <class A>
class PlanarWeights {
 public:
  PlanarWeights(const Axis& axis, int64_t rows, const PlanarTaps& taps)
      : taps_(taps), stride_(axis.stride), length_(axis.stride + kLanes<A>), rows_(rows) {
    values_.resize(static_cast<size_t>(rows * static_cast<int64_t>(taps.offsets.size()) * length_));
  }

  template <class S>
  void prepare(const S* of_channel, int64_t stride_y, int64_t stride_x) {
    for (int64_t y = 0; y < rows_; ++y)
      for (const auto& tap : taps_.taps)
        values_[at(y, tap.offset) + tap.phase] = static_cast<A>(of_channel[y * stride_y + tap.kernel * stride_x]);
    for (size_t first = 0; first < values_.size(); first += length_)
      for (int64_t i = stride_; i < length_; ++i) values_[first + i] = values_[first + i - stride_];
  }

  const A* row(int64_t y) const { return values_.data() + at(y, 0); }

 private:
  size_t at(int64_t y, size_t offset) const {
    return (static_cast<size_t>(y) * taps_.offsets.size() + offset) * static_cast<size_t>(length_);
  }

  const PlanarTaps& taps_;
  const int64_t stride_, length_, rows_;
  std::vector<A> values_;  // zero where a phase has no tap
};

// For each offset, which outputs of a row have both a tap and a pixel there: all bits of a lane, or none. Zero times an
// infinity beside the image, or between the taps of a dilated kernel, would be a NaN.
template <class A>
class PlanarMasks {
 public:
  using Lane = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  typedef Lane Lanes __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
  int64_t begin = 0, end = 0;  // whole vectors of outputs for which every tap has its pixel

  PlanarMasks(const Axis& axis, const PlanarTaps& taps) : length_((axis.out / kLanes<A> + 1) * kLanes<A>) {
    lanes_.resize(taps.offsets.size() * static_cast<size_t>(length_));
    for (const auto& tap : taps.taps) {
      Lane* of_offset = lanes_.data() + tap.offset * static_cast<size_t>(length_);
      int64_t o = taps.offsets[tap.offset] * axis.stride + tap.phase - axis.padding;
      for (int64_t i = 0; i < axis.in && o < axis.out; ++i, o += axis.stride)
        if (o >= 0) of_offset[o] = Lane(-1);
    }
    const int64_t first = std::max<int64_t>(taps.offsets.back() * axis.stride - axis.padding, 0);
    const int64_t last = std::min((taps.offsets.front() + axis.in) * axis.stride - axis.padding, axis.out);
    begin = (first + kLanes<A> - 1) / kLanes<A>, end = std::max(last / kLanes<A>, begin);
  }

  Lanes at(size_t offset, int64_t o) const {
    Lanes lanes;
    std::memcpy(&lanes, lanes_.data() + offset * static_cast<size_t>(length_) + o, sizeof lanes);
    return lanes;
  }

 private:
  const int64_t length_;
  std::vector<Lane> lanes_;
};

// Rows of one plane, stretched. The rows that an output row reads are `reach` at most from first to last, and the next
// output row reads the same or later ones: each finds its place modulo their number.
template <class A>
class StretchedRows {
 public:
  StretchedRows(const Axis& axis, int64_t reach, int64_t furthest)
      : axis_(axis), furthest_(furthest * axis.stride), held_(static_cast<size_t>(reach), -1) {
    constexpr int64_t n = kLanes<A>;
    // Zeros before the first pixel and after the last, as far as outputs look; those of the first output's own pixels
    // are aligned.
    const int64_t start = furthest_ + axis.padding;
    lead_ = (start + n - 1) / n * n - start + furthest_;
    const int64_t outputs = axis.out + axis.padding, pixels = axis.in * axis.stride;
    length_ = (lead_ + std::max(outputs, pixels) + 2 * n - 1) / n * n;
    rows_ = memory_.at_least(length_ * reach);
    std::fill_n(rows_, length_ * reach, A(0));
  }

  void forget() { std::fill(held_.begin(), held_.end(), -1); }

  // Row y of the plane; add(o) is where output o finds the pixel of offset 0.
  template <class S>
  const A* get(const S* plane, int64_t y) {
    const size_t place = static_cast<size_t>(y) % held_.size();
    A* row = rows_ + static_cast<int64_t>(place) * length_ + lead_;
    if (std::exchange(held_[place], y) != y) stretch(plane + y * axis_.in, row);
    return row + axis_.padding;
  }

 private:
  template <class S>
  void stretch(const S* pixels, A* to) const {
    constexpr int64_t n = kLanes<A>;
    const int64_t s = axis_.stride;
    int64_t x = 0;
    if (s == 1)
      for (; x + n <= axis_.in; x += n) store(to + x, load(pixels + x));
    for (; x < axis_.in; ++x)  // what a vector writes beyond its pixel's places, the next ones overwrite
      for (int64_t i = 0; i < s; i += n) store(to + x * s + i, broadcast(static_cast<A>(pixels[x])));
  }

  const Axis axis_;
  const int64_t furthest_;
  int64_t lead_ = 0, length_ = 0;
  std::vector<int64_t> held_;
  Scratch<A> memory_;
  A* rows_ = nullptr;
};

// One row of outputs: sums of stretched rows times the weights of the kernel's row that meets each.
template <class A>
struct PlanarRow {
  static constexpr int64_t n = kLanes<A>;
  struct Line {
    const A *pixels, *weights;
  };
  const Axis axis;
  const PlanarTaps taps{axis};
  const PlanarMasks<A> masks{axis, taps};
  const int64_t length = axis.stride + n;  // of the weights of one offset
  std::vector<int64_t> back;               // from an output's place in a line to the pixels of each offset
  int64_t cycle = 1;                       // vectors after which the weights are the same

  explicit PlanarRow(const Axis& along) : axis(along) {
    for (const int64_t offset : taps.offsets) back.push_back(offset * axis.stride);
    while (cycle * n % axis.stride) ++cycle;
  }

  int64_t phase_of(int64_t v) const { return (v * n + axis.padding) % axis.stride; }

  // kCount vectors from the v-th output vector on, a cycle apart: phase is that of their first outputs. kMasked: some
  // outputs lack a tap; kCount is 1 where some lack a pixel.
  template <bool kMasked, int64_t kCount>
  void vectors(const std::vector<Line>& lines, int64_t v, int64_t phase, A* sums) const {
    const int64_t x = v * n, step = cycle * n;
    Vec<A> sum[kCount] = {};
    for (const Line& line : lines) {
      const A* weights = line.weights + phase;
      for (size_t t = 0; t < back.size(); ++t, weights += length) {
        using Lanes = typename PlanarMasks<A>::Lanes;
        Vec<A> factor = load(weights);
        const A* from = line.pixels + x - back[t];
        const Lanes lanes = masks.at(t, x);
        if (kMasked) factor = (Vec<A>)((Lanes)factor & lanes);
        STRUCTOPS_UNROLL
        for (int64_t i = 0; i < kCount; ++i) {
          Vec<A> pixels = load(from + i * step);
          if (kMasked) pixels = (Vec<A>)((Lanes)pixels & lanes);
          sum[i] = multiply_add(pixels, factor, sum[i]);
        }
      }
    }
    STRUCTOPS_UNROLL
    for (int64_t i = 0; i < kCount; ++i) store(sums + x + i * step, sum[i]);
  }

  template <bool kMasked>
  void within(const std::vector<Line>& lines, A* sums) const {
    constexpr int64_t kTogether = 4;  // vectors that share a load of their weights
    for (int64_t c = masks.begin; c < std::min(masks.begin + cycle, masks.end); ++c) {
      const int64_t phase = phase_of(c);
      int64_t v = c;
      for (; v + (kTogether - 1) * cycle < masks.end; v += kTogether * cycle)
        vectors<kMasked, kTogether>(lines, v, phase, sums);
      for (; v < masks.end; v += cycle) vectors<kMasked, 1>(lines, v, phase, sums);
    }
  }

  void operator()(const std::vector<Line>& lines, A* sums) const {
    for (int64_t v = 0; v < masks.begin && v * n < axis.out; ++v) vectors<true, 1>(lines, v, phase_of(v), sums);
    taps.complete ? within<false>(lines, sums) : within<true>(lines, sums);
    for (int64_t v = masks.end; v * n < axis.out; ++v) vectors<true, 1>(lines, v, phase_of(v), sums);
  }
};

template <class S>
void depthwise_planar(const ConvTransposeParams& p, const S* input, const S* weight, const WeightStrides& strides,
                      const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  using A = acc_t<S>;
  constexpr int64_t n = kLanes<A>;
  const PlanarRow<A> row(horizontal(p));
  const auto ys = phase_groups(vertical(p), false);
  const auto rows = output_taps(ys, vertical(p));
  const int64_t reach = (p.kernel_height - 1) * p.dilation_height / p.stride_height + 1;
  // Bands so high that stretching the rows that two of them share costs little.
  const int64_t band = std::min(p.out_height, std::max<int64_t>(4 * reach * p.stride_height, 16));
  const int64_t bands = (p.out_height + band - 1) / band, items = p.batch * p.out_channels * bands;
  const double reads =
      double(row.taps.offsets.size()) * double(p.kernel_height) / double(p.stride_height);  // of a vector
  share(parallel_for, workers_for(double(items * band) * double(p.out_width) / n * (reads + 1)), items, 1,
        [&](ItemQueue& queue) {
          PlanarWeights<A> weights(row.axis, p.kernel_height, row.taps);
          StretchedRows<A> stretched(row.axis, std::min(reach, p.height), row.taps.offsets.back());
          std::vector<A> sums(static_cast<size_t>(p.out_width + n));
          std::vector<typename PlanarRow<A>::Line> lines;
          int64_t held = -1;  // the channel whose weights are prepared
          for (int64_t item, end; queue.take(item, end);) {
            const int64_t plane = item / bands, channel = plane % p.out_channels, first = item % bands * band;
            if (std::exchange(held, channel) != channel)
              weights.prepare(weight + channel * strides.in, strides.y, strides.x);
            stretched.forget();
            for (int64_t oy = first; oy < std::min(first + band, p.out_height); ++oy) {
              const OutputTaps& y = rows[static_cast<size_t>(oy)];
              lines.clear();
              for (size_t t = 0; t < y.group->offsets.size(); ++t) {
                const int64_t iy = y.q - y.group->offsets[t];
                if (iy < 0 || iy >= p.height) continue;
                lines.push_back(
                    {stretched.get(input + plane * p.height * p.width, iy), weights.row(y.group->taps[y.phase][t])});
              }
              row(lines, sums.data());
              const int64_t o = (plane * p.out_height + oy) * p.out_width;
              with_activation(e.activation, [&](auto kind) {
                finish_row<kind()>(e, sums.data(), channel, p.out_width, e.residual ? e.residual + o : nullptr,
                                   out + o);
              });
            }
          }
        });
}
