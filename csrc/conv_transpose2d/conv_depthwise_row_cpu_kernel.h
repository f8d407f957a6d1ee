// What depthwise transposed convolutions read along a row (conv_depthwise_cpu_kernel.h): stretched pixels, and patterns
// of weights, masks, scales and offsets. Included by it, once per instruction set.

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
  explicit RowAffine(const RowAxis& axis)
      : side_(axis.side), scale_(static_cast<size_t>(pattern_length<A>(axis)), A(1)), offset_(scale_.size(), A(0)) {}

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
  const int64_t side_;
  std::vector<A> scale_, offset_;
};
