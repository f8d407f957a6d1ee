// Backward, by tiles of grad_input: a tile is summed in a float buffer that fits the L2 cache, over its
// RoIs in order, then written once, zeros included. So no atomics, the same sum whoever does it, and
// half precision needs no float map.
//
// A RoI spreads each row of its bins over the tile's columns, u[x] = sum over pw of wx * grad[ph, pw],
// and adds u, a long contiguous pass over (column, channel), to each map row that the bins sampled.

template <class A>
inline void add_scaled(A* dst, const A* src, A weight, int64_t n) {
  const Vec<A> w = broadcast(weight);
  int64_t i = 0;
  for (; i + kLanes<A> <= n; i += kLanes<A>) store(dst + i, multiply_add(w, load(src + i), load(dst + i)));
  for (; i < n; ++i) dst[i] += weight * src[i];
}

// One tile: map rows [y0, y1), columns [x0, x1) and channels [c0, c0 + channels) of one image.
struct GradTile {
  int64_t image, y0, y1, x0, x1, c0, channels;
};

template <class T>
class BackwardWorker {
  using A = acc_t<T>;

 public:
  BackwardWorker(const RoiAlignParams& p, const T* grad, const int64_t strides[4], T* grad_input, bool channels_last)
      : p_(p), grad_(grad), s_(strides), grad_input_(grad_input), channels_last_(channels_last) {}

  void begin(const GradTile& tile) {
    tile_ = tile;
    width_ = tile.x1 - tile.x0;
    const int64_t n = (tile.y1 - tile.y0) * width_ * tile.channels;
    sum_ = sums_.at_least(n);
    std::fill_n(sum_, n, A(0));
  }

  // rois[k], with rows by bin and columns by pixel.
  void add(int64_t k, const AxisTaps<A>& y, const AxisTaps<A>& x) {
    const auto column = [&](int64_t at) {
      return std::lower_bound(x.pixels.begin(), x.pixels.end(), at) - x.pixels.begin();
    };
    const int64_t j0 = column(tile_.x0), j1 = column(tile_.x1);
    const auto in_tile = [&](int64_t t) { return y.pixels[y.index[t]] >= tile_.y0 && y.pixels[y.index[t]] < tile_.y1; };
    const auto any_in_tile = [&](int64_t ph) {
      for (int64_t t = y.first[ph]; t < y.first[ph + 1]; ++t)
        if (in_tile(t)) return true;
      return false;
    };
    if (j0 == j1) return;
    A* spread = spread_.at_least((j1 - j0) * tile_.channels);
    // Channels apart: rows of bins are transposed some at a time, a single row of 7 being shorter than a vector.
    const bool direct = s_[1] == 1 || p_.channels == 1;
    const int64_t row_bytes = p_.pooled_width * tile_.channels * static_cast<int64_t>(sizeof(A));
    const int64_t group = std::clamp<int64_t>(65536 / row_bytes, 1, p_.pooled_height);
    int64_t top = 0, bottom = 0;  // bin rows [top, bottom) are in bins_
    const T* grad = grad_ + k * s_[0] + tile_.c0 * s_[1];
    for (int64_t ph = 0; ph < p_.pooled_height; ++ph) {
      if (!any_in_tile(ph)) continue;
      if (direct) {
        spread_row(grad + ph * s_[2], s_[3], x, j0, j1, spread);
      } else {
        if (ph >= bottom) {
          top = ph;
          bottom = ph + 1;
          while (bottom < p_.pooled_height && bottom < top + group && any_in_tile(bottom)) ++bottom;
          take_bins(grad, top, bottom);
        }
        spread_row(static_cast<const A*>(bins_.at_least(0)) + (ph - top) * p_.pooled_width * tile_.channels,
                   tile_.channels, x, j0, j1, spread);
      }
      for (int64_t t = y.first[ph]; t < y.first[ph + 1]; ++t) {
        if (!in_tile(t)) continue;
        A* row = sum_ + (y.pixels[y.index[t]] - tile_.y0) * width_ * tile_.channels;
        for (int64_t j = j0, length; j < j1; j += length) {
          for (length = 1; j + length < j1 && x.pixels[j + length] == x.pixels[j] + length;) ++length;
          add_scaled(row + (x.pixels[j] - tile_.x0) * tile_.channels, spread + (j - j0) * tile_.channels, y.weight[t],
                     length * tile_.channels);
        }
      }
    }
  }

  // A tile that no RoI touches, straight to memory.
  void zero(const GradTile& tile) const {
    const int64_t n = tile.channels, width = tile.x1 - tile.x0, plane = p_.height * p_.width;
    for (int64_t y = tile.y0; y < tile.y1; ++y) {
      if (channels_last_) {
        T* to = grad_input_ + ((tile.image * p_.height + y) * p_.width + tile.x0) * p_.channels + tile.c0;
        const bool whole = n == p_.channels;
        for (int64_t x = 0; x < (whole ? 1 : width); ++x)
          std::fill_n(to + x * p_.channels, whole ? width * n : n, T(0));
      } else {
        T* to = grad_input_ + (tile.image * p_.channels + tile.c0) * plane + y * p_.width + tile.x0;
        for (int64_t c = 0; c < n; ++c) std::fill_n(to + c * plane, width, T(0));
      }
    }
  }

  void finish() const {
    const int64_t n = tile_.channels, plane = p_.height * p_.width;
    for (int64_t y = tile_.y0; y < tile_.y1; ++y) {
      const A* row = sum_ + (y - tile_.y0) * width_ * n;
      if (channels_last_) {
        T* to = grad_input_ + ((tile_.image * p_.height + y) * p_.width + tile_.x0) * p_.channels + tile_.c0;
        const bool whole = n == p_.channels;
        for (int64_t x = 0; x < (whole ? 1 : width_); ++x)
          convert(row + x * n, to + x * p_.channels, whole ? width_ * n : n);
      } else {
        transpose(row, n, width_, n,
                  grad_input_ + (tile_.image * p_.channels + tile_.c0) * plane + y * p_.width + tile_.x0, plane);
      }
    }
  }

 private:
  static void convert(const A* from, T* to, int64_t n) {
    int64_t i = 0;
    for (; i + kLanes<A> <= n; i += kLanes<A>) store(to + i, load(from + i));
    for (; i < n; ++i) to[i] = static_cast<T>(from[i]);
  }

  // bins_ [bottom - top, PW, channels] = grad's rows of bins [top, bottom)
  void take_bins(const T* grad, int64_t top, int64_t bottom) {
    const int64_t pw = p_.pooled_width, n = tile_.channels;
    A* bins = bins_.at_least(p_.pooled_width * n *
                             std::clamp<int64_t>(65536 / (pw * n * int64_t(sizeof(A))), 1, p_.pooled_height));
    if (s_[3] == 1 && s_[2] == pw) return transpose(grad + top * pw, s_[1], n, (bottom - top) * pw, bins, n);
    for (int64_t ph = top; ph < bottom; ++ph)
      transpose_any(grad + ph * s_[2], s_[1], s_[3], n, pw, bins + (ph - top) * pw * n, n);
  }

  // spread [j1 - j0, channels] = the row's bins, weighted, at touched columns j0 .. j1
  template <class S>
  void spread_row(const S* row, int64_t stride, const AxisTaps<A>& x, int64_t j0, int64_t j1, A* spread) {
    const int64_t n = tile_.channels;
    for (int64_t j = j0; j < j1; ++j) {
      const int64_t first = x.first[j], taps = x.first[j + 1] - first;
      std::vector<const S*>& source = sources(row);
      source.resize(static_cast<size_t>(taps));
      for (int64_t t = 0; t < taps; ++t) source[t] = row + x.index[first + t] * stride;
      weighted_sum(source.data(), x.weight.data() + first, taps, spread + (j - j0) * n, n);
    }
  }
  template <class S>
  std::vector<const S*>& sources(const S*) {
    if constexpr (std::is_same_v<S, A>)
      return accumulated_source_;
    else
      return storage_source_;
  }

  const RoiAlignParams& p_;
  const T* grad_;
  const int64_t* s_;
  T* grad_input_;
  const bool channels_last_;
  GradTile tile_{};
  int64_t width_ = 0;
  A* sum_ = nullptr;
  std::vector<const A*> accumulated_source_;
  std::vector<const T*> storage_source_;
  Scratch<A> sums_, spread_, bins_;
};

template <class T>
void roi_align_backward(const RoiAlignParams& p, const T* grad, const int64_t s[4], const double* rois, T* grad_input,
                        bool channels_last, ParallelFor parallel_for) {
  using A = acc_t<T>;
  struct Axes {
    AxisTaps<A> y, x;
  };
  std::vector<Axes> axes(static_cast<size_t>(p.rois));
  share(parallel_for, workers_for(static_cast<double>(p.rois * (p.pooled_height + p.pooled_width)) * 50), p.rois, 16,
        [&](ItemQueue& queue) {
          std::vector<int64_t> mark;
          for (int64_t k, end; queue.take(k, end);)
            for (; k < end; ++k) {
              const RoiAxes a(p, rois + k * 5);
              if (!a.finite()) continue;  // touches nothing
              axes[k].y.build(a.y, p.pooled_height, mark);
              axes[k].x.build(a.x, p.pooled_width, mark);
              axes[k].x.transpose();
            }
        });

  const int64_t block = channel_block(p.channels, channels_last ? 256 : 64), blocks = (p.channels + block - 1) / block;
  const TileGrid grid(p, block, sizeof(A), channels_last);
  const int64_t tiles = p.batch * grid.down * grid.across;
  // visits: the RoIs of each tile, in order; those of tile t are visits[first[t]] .. visits[first[t + 1]].
  std::vector<int64_t> first(static_cast<size_t>(tiles) + 1, 0), visits;
  const auto each_tile = [&](int64_t k, auto&& visit) {
    const AxisTaps<A>&y = axes[k].y, &x = axes[k].x;
    if (y.pixels.empty() || x.pixels.empty()) return;
    for (int64_t i = y.pixels.front() / grid.height; i <= y.pixels.back() / grid.height; ++i)
      for (int64_t j = x.pixels.front() / grid.width; j <= x.pixels.back() / grid.width; ++j)
        visit((static_cast<int64_t>(rois[k * 5]) * grid.down + i) * grid.across + j);
  };
  for (int64_t k = 0; k < p.rois; ++k) each_tile(k, [&](int64_t t) { ++first[t + 1]; });
  for (int64_t t = 0; t < tiles; ++t) first[t + 1] += first[t];
  visits.resize(static_cast<size_t>(first[tiles]));
  std::vector<int64_t> next(first);
  for (int64_t k = 0; k < p.rois; ++k) each_tile(k, [&](int64_t t) { visits[next[t]++] = k; });

  const double steps = static_cast<double>(p.batch * p.channels) * static_cast<double>(p.height * p.width) / kLanes<A> +
                       static_cast<double>(first[tiles]) * 300.0 * static_cast<double>(p.channels) / kLanes<A>;
  share(parallel_for, workers_for(steps), tiles * blocks, 1, [&](ItemQueue& queue) {
    BackwardWorker<T> worker(p, grad, s, grad_input, channels_last);
    for (int64_t i, end; queue.take(i, end);)
      for (; i < end; ++i) {
        // Tiles run before channel blocks: a RoI's bins are then still in cache for the tile beside it.
        const int64_t t = i % tiles, c0 = i / tiles * block;
        const int64_t y0 = t / grid.across % grid.down * grid.height, x0 = t % grid.across * grid.width;
        const GradTile tile{t / (grid.across * grid.down),      y0, std::min(y0 + grid.height, p.height), x0,
                            std::min(x0 + grid.width, p.width), c0, std::min(block, p.channels - c0)};
        if (first[t] == first[t + 1]) {
          worker.zero(tile);
          continue;
        }
        worker.begin(tile);
        for (int64_t v = first[t]; v < first[t + 1]; ++v) worker.add(visits[v], axes[visits[v]].y, axes[visits[v]].x);
        worker.finish();
      }
  });
}
