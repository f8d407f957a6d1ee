// Chunks of positions: their pixels, and tile after tile of sums. Included once per instruction set, after
// conv_product_cpu_kernel.h.

struct Position {
  int64_t image, y, x;  // y and x in q of conv_axis.h
};

// Few channels mostly: the call of memcpy would take longer than it.
template <class R>
inline void copy_pixel(const R* from, int64_t channels, R* to) {
  constexpr int64_t n = 32 / sizeof(R);
  int64_t i = 0;
  for (; i + n <= channels; i += n) std::memcpy(to + i, from + i, 32);
  for (; i < channels; ++i) to[i] = from[i];
}

// A consecutive part of all positions, and where its pixels are.
template <class R>
class Chunk {
 public:
  Chunk(const Product& p, const R* rows, const R* zeros) : p_(p), rows_(rows), zeros_(zeros) {}

  void at(int64_t begin, int64_t end) {
    count_ = end - begin;
    int64_t x = begin % p_.count_x, y = begin / p_.count_x % p_.count_y, image = begin / p_.count_x / p_.count_y;
    for (int64_t i = 0; i < count_; ++i) {
      positions_[i] = {image, p_.first_y + y, p_.first_x + x};
      pixels_[i] = image * p_.image_stride +
                   ((p_.first_y + y) * p_.step_y * p_.rows_width + (p_.first_x + x) * p_.step_x) * p_.pixel_stride;
      if (++x < p_.count_x) continue;
      x = 0;
      if (++y == p_.count_y) y = 0, ++image;
    }
  }
  // Copies the pixels of all taps side by side, where that is little: a product of short depths would load and store
  // its sums more often than it adds to them.
  void gather(Scratch<R>& scratch) {
    gathered_ = nullptr;
    const int64_t taps = static_cast<int64_t>(p_.taps.size()), all = taps * p_.depth;
    if (taps < 2 || p_.depth >= kDepthBlock || all > 4 * kDepthBlock) return;
    R* to = scratch.at_least(kChunk * all);
    const R* pixels[kChunk];
    bool inside[kChunk];
    for (int64_t t = 0; t < taps; ++t) {
      this->pixels(p_.taps[static_cast<size_t>(t)], pixels, inside);
      for (int64_t i = 0; i < count_; ++i) copy_pixel(pixels[i], p_.depth, to + i * all + t * p_.depth);
    }
    gathered_ = to;
  }
  const R* gathered() const { return gathered_; }
  int64_t count() const { return count_; }
  const Position& operator[](int64_t i) const { return positions_[i]; }
  const Position* positions() const { return positions_; }

  // Pointers to the pixels of a tap, zeros for those outside the image, and which those are. False where all are.
  bool pixels(const Tap& tap, const R** found, bool* inside) const {
    bool any = false;
    const uint64_t height = static_cast<uint64_t>(p_.rows_height), width = static_cast<uint64_t>(p_.rows_width);
    const int64_t back = (tap.y * p_.rows_width + tap.x) * p_.pixel_stride;
    for (int64_t i = 0; i < count_; ++i) {
      const Position& at = positions_[i];
      inside[i] = static_cast<uint64_t>(at.y * p_.step_y - tap.y) < height &&
                  static_cast<uint64_t>(at.x * p_.step_x - tap.x) < width;
      found[i] = inside[i] ? rows_ + (pixels_[i] - back) : zeros_;
      any |= inside[i];
    }
    return any;
  }

 private:
  const Product& p_;
  const R *rows_, *zeros_;  // zeros: a pixel of them
  Position positions_[kChunk];
  int64_t pixels_[kChunk];  // where a tap of (0, 0) would find them
  int64_t count_ = 0;
  const R* gathered_ = nullptr;  // [position][tap][channel]
};

// Parts of [begin, end) as long as each other and at most kTilePositions: body(first, last).
template <class Body>
inline void in_parts(int64_t begin, int64_t end, const Body& body) {
  const int64_t count = end - begin, parts = (count + kTilePositions - 1) / kTilePositions;
  for (int64_t i = 0; i < parts; ++i) body(begin + count * i / parts, begin + count * (i + 1) / parts);
}

// sums [chunk][kTileLanes] of one tile, whose panel is `vectors` wide; put(begin, end) whenever those of some positions
// are complete.
//
// Where one multiplication completes them, they are put `put_every` positions at a time: so the output is written while
// the next are multiplied, and not in a burst that all wait for (a third of the time of 64 channels).
//
// A weight that is not finite would make a NaN of a zero outside the image: then positions are taken one by one, and
// those outside are left out.
template <class R, class A, class Put>
inline void sum_tile(const Product& p, const Chunk<R>& chunk, const R* panel, int64_t vectors, bool finite, A* sums,
                     int64_t put_every, const Put& put) {
  const int64_t count = chunk.count(), width = vectors * kLanes<A>;
  const R* pixels[kChunk];
  bool inside[kChunk];
  const int64_t block = kDepthBlock * (sizeof(R) < sizeof(A) ? 2 : 1);
  const auto at_once = [&](int64_t depth) {
    for (int64_t begin = 0; begin < count; begin += put_every) {
      const int64_t end = std::min(begin + put_every, count);
      in_parts(begin, end, [&](int64_t first, int64_t last) {
        multiply_tile<true>(vectors, last - first, pixels + first, panel, depth, sums + first * kTileLanes<A>);
      });
      put(begin, end);
    }
  };
  if (chunk.gathered()) {
    const int64_t all = static_cast<int64_t>(p.taps.size()) * p.depth;
    for (int64_t i = 0; i < count; ++i) pixels[i] = chunk.gathered() + i * all;
    return at_once(all);
  }
  if (finite && p.taps.size() == 1 && p.depth <= 2 * block) {
    chunk.pixels(p.taps[0], pixels, inside);
    return at_once(p.depth);
  }
  std::memset(sums, 0, sizeof(A) * static_cast<size_t>(count * kTileLanes<A>));
  for (const Tap& tap : p.taps) {
    const R* b = panel;
    panel += p.depth * width;
    if (!chunk.pixels(tap, pixels, inside)) continue;
    for (int64_t k = 0; k < p.depth; k += block, b += block * width) {
      const int64_t depth = std::min(block, p.depth - k);
      if (finite) {
        in_parts(0, count, [&](int64_t first, int64_t last) {
          if (std::any_of(inside + first, inside + last, [](bool in) { return in; }))
            multiply_tile<false>(vectors, last - first, pixels + first, b, depth, sums + first * kTileLanes<A>);
        });
      } else {
        for (int64_t i = 0; i < count; ++i)
          if (inside[i]) multiply_tile<false>(vectors, 1, pixels + i, b, depth, sums + i * kTileLanes<A>);
      }
      for (int64_t i = 0; i < count; ++i) pixels[i] += block;
    }
  }
  put(0, count);
}
