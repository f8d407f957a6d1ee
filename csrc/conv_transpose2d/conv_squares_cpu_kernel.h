// Two taps in either direction, with nine multiplications for four outputs instead of sixteen: Winograd's minimal
// filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), F(2 x 2, 2 x 2). Included once
// per instruction set, after conv_chunk_cpu_kernel.h and conv_put_cpu_kernel.h.
//
// In one direction, of pixels e0, e1, e2 and taps a, b, the outputs e0 a + e1 b and e1 a + e2 b are m0 + m1 and m1 + m2
// with m0 = (e0 - e1) a, m1 = e1 (a + b), m2 = (e2 - e1) b. In both directions, a square of 2 x 2 positions has nine
// such products, each over all channels: nine matrix products, whose inputs (of pixels) serve all lanes, and whose
// weights are packed already. A kernel that is twice its stride, as pose networks and generators have them, has two
// taps in either direction in every phase; one of 3 taps and stride 2 has them with zeros beside (widens()).
//
// Nothing is multiplied by more than one or divided, so errors grow by no more than the additions: results differ from
// the direct sum's by rounding of the largest term. That a sum is the difference of larger ones forbids infinities,
// and numbers near them: where there are any, the sum is done directly.

constexpr int64_t kComponents = 9;
constexpr int64_t kSquares = 48;             // whose components share a panel's way through the caches
constexpr int64_t kSquaresPut = kChunk / 4;  // at a time
constexpr int64_t kFewestChannels = 16, kFewestLanes = 64, kFewestPositions = 192;

// Whether a product has such taps, and enough of everything.
inline bool in_squares(const Product& p) {
  const std::vector<Tap>& t = p.taps;
  if (t.size() != 4 || p.step_y != 1 || p.step_x != 1) return false;
  for (int i = 0; i < 4; ++i)
    if (t[i].y != t[0].y + i / 2 || t[i].x != t[0].x + i % 2) return false;
  return p.depth >= kFewestChannels && p.lanes >= kFewestLanes && p.batch * p.count_y * p.count_x >= kFewestPositions;
}

// So small that no sum comes near the largest number.
inline auto is_tame(Vec<float> x) { return absolute<float>(x) < 1e15f; }

// Whether all of `count` numbers are.
inline bool tame(const float* from, int64_t count, ParallelFor parallel_for) {
  constexpr int64_t block = 1 << 14, n = kLanes<float>;
  std::atomic<bool> all{true};
  share(parallel_for, workers_for(static_cast<double>(count) / 8), (count + block - 1) / block, 1,
        [&](ItemQueue& queue) {
          for (int64_t item, end; queue.take(item, end) && all.load(std::memory_order_relaxed);) {
            const float *p = from + item * block, *last = std::min(p + block, from + count);
            auto fine = is_tame(Vec<float>{});
            for (; p + n <= last; p += n) fine &= is_tame(load(p));
            if (p < last) fine &= is_tame(load_part(p, last - p));
            for (int64_t i = 0; i < n; ++i)
              if (!fine[i]) all.store(false, std::memory_order_relaxed);
          }
        });
  return all.load();
}

// The nine panels of a tile, [component][size], from those of its four taps. Returns whether all weights are tame.
inline bool combine_taps(const float* taps, int64_t size, float* to) {
  auto fine = is_tame(Vec<float>{});
  for (int64_t k = 0; k < size; k += kLanes<float>) {
    Vec<float> rows[3][2];
    for (int64_t x = 0; x < 2; ++x) {
      const Vec<float> b = load(taps + x * size + k), a = load(taps + (2 + x) * size + k);
      fine &= is_tame(a) & is_tame(b);
      rows[0][x] = a, rows[1][x] = a + b, rows[2][x] = b;
    }
    for (int64_t y = 0; y < 3; ++y) {
      store(to + 3 * y * size + k, rows[y][1]);
      store(to + (3 * y + 1) * size + k, rows[y][1] + rows[y][0]);
      store(to + (3 * y + 2) * size + k, rows[y][0]);
    }
  }
  for (int64_t i = 0; i < kLanes<float>; ++i)
    if (!fine[i]) return false;
  return true;
}

// Consecutive squares of a product's positions, and the nine maps their products are of.
class Squares {
 public:
  explicit Squares(const Product& p) : p_(p), height_((p.count_y + 1) / 2), width_((p.count_x + 1) / 2) {}
  int64_t in_all() const { return p_.batch * height_ * width_; }

  void at(int64_t begin, int64_t end) {
    count_ = end - begin;
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t rest = (begin + i) % (height_ * width_);
      first_[i] = {(begin + i) / (height_ * width_), p_.first_y + rest / width_ * 2, p_.first_x + rest % width_ * 2};
    }
  }
  int64_t count() const { return count_; }

  // to [component][kSquares][channel]; `zeros` is a pixel outside the image.
  void gather(const float* rows, const float* zeros, float* to) const {
    constexpr int64_t n = kLanes<float>;
    for (int64_t i = 0; i < count_; ++i) {
      const float* pixels[3][3];
      for (int64_t y = 0; y < 3; ++y)
        for (int64_t x = 0; x < 3; ++x) {
          const int64_t row = first_[i].y - p_.taps[0].y - 1 + y, column = first_[i].x - p_.taps[0].x - 1 + x;
          const bool inside = row >= 0 && row < p_.rows_height && column >= 0 && column < p_.rows_width;
          pixels[y][x] =
              inside ? rows + first_[i].image * p_.image_stride + (row * p_.rows_width + column) * p_.pixel_stride
                     : zeros;
        }
      for (int64_t k = 0; k < p_.depth; k += n) {
        const int64_t rest = p_.depth - k;
        const auto get = [&](const float* pixel) { return rest >= n ? load(pixel + k) : load_part(pixel + k, rest); };
        const auto put = [&](int64_t component, Vec<float> v) {
          float* at = to + (component * kSquares + i) * p_.depth + k;
          rest >= n ? store(at, v) : store_part(at, v, rest);
        };
        Vec<float> e[3][3];
        for (int64_t x = 0; x < 3; ++x) {
          const Vec<float> middle = get(pixels[1][x]);
          e[0][x] = get(pixels[0][x]) - middle, e[1][x] = middle, e[2][x] = get(pixels[2][x]) - middle;
        }
        for (int64_t y = 0; y < 3; ++y) {
          put(3 * y, e[y][0] - e[y][1]);
          put(3 * y + 1, e[y][1]);
          put(3 * y + 2, e[y][2] - e[y][1]);
        }
      }
    }
  }

  // The positions of squares [begin, end), row by row, and which of them each square's four are (-1: none).
  int64_t positions(int64_t begin, int64_t end, Position* found, int8_t (*slots)[4]) const {
    int64_t n = 0;
    for (int64_t first = begin, last; first < end; first = last) {
      for (last = first + 1; last < end && first_[last].y == first_[first].y && first_[last].x > first_[first].x;)
        ++last;
      for (int64_t y = 0; y < 2; ++y)
        for (int64_t i = first; i < last; ++i)
          for (int64_t x = 0; x < 2; ++x) {
            const Position at{first_[i].image, first_[i].y + y, first_[i].x + x};
            const bool exists = at.y < p_.first_y + p_.count_y && at.x < p_.first_x + p_.count_x;
            slots[i - begin][2 * y + x] = exists ? static_cast<int8_t>(n) : int8_t{-1};
            if (exists) found[n++] = at;
          }
    }
    return n;
  }

 private:
  const Product& p_;
  const int64_t height_, width_;  // of an image, in squares
  Position first_[kSquares];
  int64_t count_ = 0;
};

// products [component][kSquares][kTileLanes] of one tile.
inline void multiply_squares(const Squares& squares, const float* gathered, const float* panel, int64_t depth,
                             int64_t vectors, float* products) {
  const int64_t width = vectors * kLanes<float>;
  for (int64_t c = 0; c < kComponents; ++c)
    for (int64_t k = 0; k < depth; k += kDepthBlock) {
      const int64_t block = std::min(kDepthBlock, depth - k);
      in_parts(0, squares.count(), [&](int64_t first, int64_t last) {
        const float* pixels[kTilePositions];
        for (int64_t i = first; i < last; ++i) pixels[i - first] = gathered + (c * kSquares + i) * depth + k;
        float* to = products + (c * kSquares + first) * kTileLanes<float>;
        const float* b = panel + (c * depth + k) * width;
        k == 0 ? multiply_tile<true>(vectors, last - first, pixels, b, block, to)
               : multiply_tile<false>(vectors, last - first, pixels, b, block, to);
      });
    }
}

// sums [position][kTileLanes] of squares [begin, end).
inline void add_up_squares(const float* products, int64_t begin, int64_t end, const int8_t (*slots)[4], int64_t vectors,
                           float* sums) {
  for (int64_t i = begin; i < end; ++i)
    for (int64_t v = 0; v < vectors; ++v) {
      Vec<float> rows[2][3];
      for (int64_t x = 0; x < 3; ++x) {
        const auto get = [&](int64_t y) {
          return load(products + ((3 * y + x) * kSquares + i) * kTileLanes<float> + v * kLanes<float>);
        };
        const Vec<float> middle = get(1);
        rows[0][x] = get(0) + middle, rows[1][x] = middle + get(2);
      }
      for (int64_t y = 0; y < 2; ++y)
        for (int64_t x = 0; x < 2; ++x)
          if (const int64_t slot = slots[i - begin][2 * y + x]; slot >= 0)
            store(sums + slot * kTileLanes<float> + v * kLanes<float>, rows[y][x] + rows[y][x + 1]);
    }
}
