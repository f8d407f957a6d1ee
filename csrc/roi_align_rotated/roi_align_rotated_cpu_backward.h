// Backward, by tiles of grad_input as in RoI Align: a tile is summed in a float buffer that fits the L2 cache, over its
// RoIs in order and their bins in order, then written once, zeros included.
//
// Each tile finds the taps of the bins that reach into it anew: a RoI meets few tiles, and the taps of all RoIs
// together, which have no bound but the map's size each, are never in memory.

// dst[t][i] += weight[t] * src[i] for taps pixels. src stays in registers, so a tap costs a load and a store a vector.
template <int U, class S, class A>
inline void scatter_block(A* const* dst, const A* weight, int64_t taps, const S* src, int64_t i) {
  Vec<A> value[U];
  for (int u = 0; u < U; ++u) value[u] = load(src + i + u * kLanes<A>);
  for (int64_t t = 0; t < taps; ++t) {
    A* to = dst[t] + i;
    const Vec<A> w = broadcast(weight[t]);
    for (int u = 0; u < U; ++u) store(to + u * kLanes<A>, multiply_add(w, value[u], load(to + u * kLanes<A>)));
  }
}

template <class S, class A>
inline void scatter(A* const* dst, const A* weight, int64_t taps, const S* src, int64_t n) {
  int64_t i = 0;
  for (; i + 4 * kLanes<A> <= n; i += 4 * kLanes<A>) scatter_block<4>(dst, weight, taps, src, i);
  for (; i + kLanes<A> <= n; i += kLanes<A>) scatter_block<1>(dst, weight, taps, src, i);
  for (; i < n; ++i) {
    const A value = static_cast<A>(src[i]);
    for (int64_t t = 0; t < taps; ++t) dst[t][i] += weight[t] * value;
  }
}

// One tile: map rows [y0, y1), columns [x0, x1) and channels [c0, c0 + channels) of one image.
struct RotatedTile {
  int64_t image, y0, y1, x0, x1, c0, channels;
  // The samples that touch it.
  RoiWindow window() const {
    return {static_cast<double>(x0 - 1), static_cast<double>(x1), static_cast<double>(y0 - 1), static_cast<double>(y1)};
  }
};

template <class T>
class RotatedBackward {
  using A = acc_t<T>;

 public:
  RotatedBackward(const RoiAlignParams& p, const T* grad, const int64_t strides[4], T* grad_input, bool channels_last)
      : p_(p), grad_(grad), s_(strides), grad_input_(grad_input), channels_last_(channels_last) {}

  void begin(const RotatedTile& tile) {
    tile_ = tile;
    const int64_t n = (tile.y1 - tile.y0) * (tile.x1 - tile.x0) * tile.channels;
    sum_ = sums_.at_least(n);
    std::fill_n(sum_, n, A(0));
  }

  void add(int64_t k, const RotatedRoi& roi) {
    const RoiWindow local = roi.local(tile_.window());
    const BinRange bins = roi.bins_in(p_, local);
    const int64_t n = tile_.channels, across = bins.x1 - bins.x0;
    if (across <= 0) return;
    const T* grad = grad_ + k * s_[0] + tile_.c0 * s_[1];
    const bool direct = s_[1] == 1 || p_.channels == 1;
    // Channels apart: rows of bins are transposed some at a time.
    const int64_t group =
        std::clamp<int64_t>(kRotatedTileBytes / (across * n * int64_t(sizeof(A))), 1, p_.pooled_height);
    for (int64_t top = bins.y0; top < bins.y1; top += group) {
      const int64_t bottom = std::min(top + group, bins.y1);
      if (!direct) take_bins(grad, top, bottom, bins.x0, across);
      for (int64_t ph = top; ph < bottom; ++ph)
        for (int64_t pw = bins.x0; pw < bins.x1; ++pw) {
          find_taps(roi, ph, pw, local);
          const int64_t taps = static_cast<int64_t>(weight_.size());
          if (taps == 0) continue;
          if (direct)
            scatter(target_.data(), weight_.data(), taps, grad + ph * s_[2] + pw * s_[3], n);
          else
            scatter(target_.data(), weight_.data(), taps,
                    static_cast<const A*>(bins_.at_least(0)) + ((ph - top) * across + pw - bins.x0) * n, n);
        }
    }
  }

  // A tile that no RoI touches, straight to memory.
  void zero(const RotatedTile& tile) const {
    each_row(tile, [&](int64_t, T* to, int64_t length) { std::fill_n(to, length, T(0)); });
  }

  void finish() const {
    const int64_t n = tile_.channels, width = tile_.x1 - tile_.x0, plane = p_.height * p_.width;
    if (!channels_last_) {
      for (int64_t y = tile_.y0; y < tile_.y1; ++y)
        transpose(static_cast<const A*>(sum_) + (y - tile_.y0) * width * n, n, width, n,
                  grad_input_ + (tile_.image * p_.channels + tile_.c0) * plane + y * p_.width + tile_.x0, plane);
      return;
    }
    each_row(tile_, [&](int64_t from, T* to, int64_t length) {
      const A* sum = sum_ + from;
      int64_t i = 0;
      for (; i + kLanes<A> <= length; i += kLanes<A>) store(to + i, load(sum + i));
      for (; i < length; ++i) to[i] = static_cast<T>(sum[i]);
    });
  }

 private:
  // Calls write(offset in the tile's sums, address, elements) for the longest runs that are contiguous in grad_input.
  template <class Write>
  void each_row(const RotatedTile& t, const Write& write) const {
    const int64_t n = t.channels, width = t.x1 - t.x0, plane = p_.height * p_.width;
    for (int64_t y = t.y0; y < t.y1; ++y) {
      if (!channels_last_) {
        T* to = grad_input_ + (t.image * p_.channels + t.c0) * plane + y * p_.width + t.x0;
        for (int64_t c = 0; c < n; ++c) write(0, to + c * plane, width);
        continue;
      }
      T* to = grad_input_ + ((t.image * p_.height + y) * p_.width + t.x0) * p_.channels + t.c0;
      const int64_t from = (y - t.y0) * width * n;
      if (n == p_.channels)
        write(from, to, width * n);
      else
        for (int64_t x = 0; x < width; ++x) write(from + x * n, to + x * p_.channels, n);
    }
  }

  // target_ and weight_: the pixels of the tile that bin (ph, pw) touches.
  void find_taps(const RotatedRoi& roi, int64_t ph, int64_t pw, const RoiWindow& local) {
    target_.clear(), weight_.clear();
    const int64_t width = tile_.x1 - tile_.x0;
    merger_.each_pixel(roi, ph, pw, local, {p_.width, p_.height}, [&](int64_t y, int64_t x, double w) {
      if (y < tile_.y0 || y >= tile_.y1 || x < tile_.x0 || x >= tile_.x1 || static_cast<A>(w) == A(0)) return;
      target_.push_back(sum_ + ((y - tile_.y0) * width + x - tile_.x0) * tile_.channels);
      weight_.push_back(static_cast<A>(w));
    });
  }

  // bins_ [bottom - top, across, channels] = grad's rows of bins [top, bottom), columns from `left`
  void take_bins(const T* grad, int64_t top, int64_t bottom, int64_t left, int64_t across) {
    const int64_t n = tile_.channels;
    A* bins = bins_.at_least((bottom - top) * across * n);
    if (s_[3] == 1 && s_[2] == across)
      return transpose(grad + top * across, s_[1], n, (bottom - top) * across, bins, n);
    for (int64_t ph = top; ph < bottom; ++ph)
      transpose_any(grad + ph * s_[2] + left * s_[3], s_[1], s_[3], n, across, bins + (ph - top) * across * n, n);
  }

  const RoiAlignParams& p_;
  const T* grad_;
  const int64_t* s_;
  T* grad_input_;
  const bool channels_last_;
  RotatedTile tile_{};
  A* sum_ = nullptr;
  BinMerger merger_;
  std::vector<A*> target_;
  std::vector<A> weight_;
  Scratch<A> sums_, bins_;
};

template <class T>
void roi_align_rotated_backward(const RoiAlignParams& p, bool clockwise, const T* grad, const int64_t s[4],
                                const double* rows, T* grad_input, bool channels_last, ParallelFor parallel_for) {
  using A = acc_t<T>;
  std::vector<RotatedRoi> rois;
  for (int64_t k = 0; k < p.rois; ++k) rois.push_back(rotated_roi(p, clockwise, rows + k * 6));
  const int64_t block = channel_block(p.channels, channels_last ? 256 : 64), blocks = (p.channels + block - 1) / block;
  const TileGrid grid(p, block, sizeof(A), channels_last);
  const int64_t tiles = p.batch * grid.down * grid.across;
  const auto tile_at = [&](int64_t t, int64_t c0) {
    const int64_t y0 = t / grid.across % grid.down * grid.height, x0 = t % grid.across * grid.width;
    return RotatedTile{t / (grid.across * grid.down),      y0, std::min(y0 + grid.height, p.height), x0,
                       std::min(x0 + grid.width, p.width), c0, std::min(block, p.channels - c0)};
  };
  // visits: the RoIs of each tile, in order; those of tile t are visits[first[t]] .. visits[first[t + 1]].
  std::vector<int64_t> first(static_cast<size_t>(tiles) + 1, 0), visits;
  const auto each_tile = [&](int64_t k, auto&& visit) {
    const PixelBox box = rois[k].pixels(p.width, p.height);
    if (box.x0 > box.x1) return;
    for (int64_t i = box.y0 / grid.height; i <= box.y1 / grid.height; ++i)
      for (int64_t j = box.x0 / grid.width; j <= box.x1 / grid.width; ++j) {
        const int64_t t = (static_cast<int64_t>(rows[k * 6]) * grid.down + i) * grid.across + j;
        // A long box crosses few of the tiles around it.
        const BinRange bins = rois[k].bins_in(p, rois[k].local(tile_at(t, 0).window()));
        if (bins.x0 < bins.x1 && bins.y0 < bins.y1) visit(t);
      }
  };
  for (int64_t k = 0; k < p.rois; ++k) each_tile(k, [&](int64_t t) { ++first[t + 1]; });
  for (int64_t t = 0; t < tiles; ++t) first[t + 1] += first[t];
  visits.resize(static_cast<size_t>(first[tiles]));
  std::vector<int64_t> next(first);
  for (int64_t k = 0; k < p.rois; ++k) each_tile(k, [&](int64_t t) { visits[next[t]++] = k; });

  const double vectors = static_cast<double>(p.channels) / kLanes<A>;
  const double steps = static_cast<double>(p.batch * p.height) * static_cast<double>(p.width) * vectors +
                       static_cast<double>(first[tiles]) * 200.0 * (vectors + 12.0);
  share(parallel_for, workers_for(steps), tiles * blocks, 1, [&](ItemQueue& queue) {
    RotatedBackward<T> worker(p, grad, s, grad_input, channels_last);
    for (int64_t i, end; queue.take(i, end);)
      for (; i < end; ++i) {
        const int64_t t = i % tiles;
        const RotatedTile tile = tile_at(t, i / tiles * block);
        if (first[t] == first[t + 1]) {
          worker.zero(tile);
          continue;
        }
        worker.begin(tile);
        for (int64_t v = first[t]; v < first[t + 1]; ++v) worker.add(visits[v], rois[visits[v]]);
        worker.finish();
      }
  });
}
