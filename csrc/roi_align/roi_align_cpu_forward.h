// Forward. For each row of bins: first the weighted sum of its two to four map rows, a long contiguous
// pass over (column, channel), then of each bin's columns from that sum, which stays in cache. Counted
// in vector loads this equals going bin by bin for bins of a pixel or more (495 per 7x7 RoI of 64 px
// on a stride-4 map) and beats it below (640 against 1040 at 14x14 bins over 5 px), and the map is read
// in order.

// Where the touched pixels of one RoI lie: element of channel c at data + row[i] + column[j] + c, for
// touched row i and touched column j.
template <class S>
struct Patch {
  const S* data;
  std::vector<int64_t> row, column;
};

template <class T>
class ForwardWorker {
  using A = acc_t<T>;

 public:
  ForwardWorker(const RoiAlignMap* maps, const double* rois, T* output, bool channels_last)
      : maps_(maps), p_(maps[0].p), rois_(rois), output_(output), channels_last_(channels_last) {}

  // Makes rois[item.k] current; false: it is on no map, or not finite.
  bool select(const ForwardItem& item) {
    if (item.k == k_) return pooled_;
    k_ = item.k;
    pooled_ = false;
    constant_ = item.level == kNoLevel ? T(0) : static_cast<T>(std::numeric_limits<A>::quiet_NaN());
    if (item.level < 0) return false;
    const RoiAxes axes(maps_[item.level].p, rois_ + k_ * 5);
    if (!axes.finite()) return false;
    pooled_ = true;
    y_.build(axes.y, p_.pooled_height, mark_);
    x_.build(axes.x, p_.pooled_width, mark_);
    return true;
  }

  // Channels [c0, c0 + channels) of a RoI that select() refused.
  void constant(int64_t c0, int64_t channels) {
    const int64_t bins = p_.pooled_height * p_.pooled_width;
    T* output = output_ + k_ * p_.channels * bins;
    if (!channels_last_)
      std::fill_n(output + c0 * bins, channels * bins, constant_);
    else
      for (int64_t b = 0; b < bins; ++b) std::fill_n(output + b * p_.channels + c0, channels, constant_);
  }

  // The same of one that it took, from a map whose pixel (y, x) is at
  // map + y * stride_y + x * stride_x, channels side by side.
  template <class S>
  void from_map(const S* map, int64_t stride_y, int64_t stride_x, int64_t c0, int64_t channels) {
    row_.clear(), column_.clear();
    for (int64_t y : y_.pixels) row_.push_back(y * stride_y);
    for (int64_t x : x_.pixels) column_.push_back(x * stride_x);
    pool(map, c0, channels);
  }

  // The same from any layout: image is that of the RoI's batch index and channel c0, strides (c, h, w).
  // Copies the touched pixels into a patch with channels side by side.
  void from_any(const T* image, const int64_t* strides, int64_t c0, int64_t channels) {
    const int64_t columns = static_cast<int64_t>(x_.pixels.size());
    A* patch = patch_.at_least(static_cast<int64_t>(y_.pixels.size()) * columns * channels + 1);
    row_.clear(), column_.clear();
    for (int64_t j = 0; j < columns; ++j) column_.push_back(j * channels);
    for (int64_t i = 0; i < static_cast<int64_t>(y_.pixels.size()); ++i) {
      row_.push_back(i * columns * channels);
      for (int64_t j = 0, length; j < columns; j += length) {
        for (length = 1; j + length < columns && x_.pixels[j + length] == x_.pixels[j] + length;) ++length;
        transpose_any(image + y_.pixels[i] * strides[1] + x_.pixels[j] * strides[2], strides[0], strides[2], channels,
                      length, patch + row_[i] + column_[j], channels);
      }
    }
    pool(static_cast<const A*>(patch), c0, channels);
  }

 private:
  template <class S>
  void pool(const S* data, int64_t c0, int64_t channels) {
    const int64_t bins = p_.pooled_height * p_.pooled_width, columns = static_cast<int64_t>(column_.size());
    A* sum = sum_.at_least(columns * channels + kLanes<A>);  // the second pass may read past a column
    T* output = output_ + k_ * p_.channels * bins;
    // Bins with channels side by side, before they are transposed into an NCHW output: some rows at a time.
    const int64_t padded = round_up(channels, kLanes<A>);
    const int64_t row_bytes = p_.pooled_width * padded * static_cast<int64_t>(sizeof(A));
    const int64_t group =
        channels_last_ ? p_.pooled_height : std::clamp<int64_t>(65536 / row_bytes, 1, p_.pooled_height);
    A* tile = channels_last_ ? nullptr : tile_.at_least(group * p_.pooled_width * padded);
    for (int64_t top = 0; top < p_.pooled_height; top += group) {
      const int64_t bottom = std::min(top + group, p_.pooled_height);
      for (int64_t ph = top; ph < bottom; ++ph) {
        sum_rows(data, ph, channels, sum);
        for (int64_t pw = 0; pw < p_.pooled_width; ++pw) {
          const int64_t first = x_.first[pw], taps = y_.first[ph + 1] > y_.first[ph] ? x_.first[pw + 1] - first : 0;
          column_source_.resize(static_cast<size_t>(taps));
          for (int64_t t = 0; t < taps; ++t) column_source_[t] = sum + x_.index[first + t] * channels;
          const A* const* source = column_source_.data();
          if (channels_last_)
            weighted_sum(source, x_.weight.data() + first, taps,
                         output + (ph * p_.pooled_width + pw) * p_.channels + c0, channels);
          else
            weighted_sum(source, x_.weight.data() + first, taps, tile + ((ph - top) * p_.pooled_width + pw) * padded,
                         padded);
        }
      }
      if (!channels_last_)
        transpose(static_cast<const A*>(tile), padded, (bottom - top) * p_.pooled_width, channels,
                  output + c0 * bins + top * p_.pooled_width, bins);
    }
  }

  // sum [touched columns, channels] = the rows of bin row ph, weighted; by runs of adjacent columns.
  template <class S>
  void sum_rows(const S* data, int64_t ph, int64_t channels, A* sum) {
    const int64_t first = y_.first[ph], taps = y_.first[ph + 1] - first, columns = static_cast<int64_t>(column_.size());
    if (taps == 0) return;
    std::vector<const S*>& source = row_source(static_cast<const S*>(nullptr));
    source.resize(static_cast<size_t>(taps));
    for (int64_t j = 0, length; j < columns; j += length) {
      for (length = 1; j + length < columns && column_[j + length] == column_[j] + length * channels;) ++length;
      for (int64_t t = 0; t < taps; ++t) source[t] = data + row_[y_.index[first + t]] + column_[j];
      weighted_sum(source.data(), y_.weight.data() + first, taps, sum + j * channels, length * channels);
    }
  }

  template <class S>
  std::vector<const S*>& row_source(const S*) {
    if constexpr (std::is_same_v<S, A>)
      return accumulated_source_;
    else
      return storage_source_;
  }

  const RoiAlignMap* maps_;
  const RoiAlignParams& p_;  // what the maps have in common
  const double* rois_;
  T* output_;
  const bool channels_last_;
  int64_t k_ = -1;
  bool pooled_ = false;
  T constant_ = T(0);
  AxisTaps<A> y_, x_;
  std::vector<int64_t> mark_, row_, column_;
  std::vector<const A*> column_source_, accumulated_source_;
  std::vector<const T*> storage_source_;
  Scratch<A> sum_, tile_, patch_;
};

template <class T>
void roi_align_forward(const RoiAlignMap* maps, const double* rois, const int8_t* level, T* output, bool channels_last,
                       ParallelFor parallel_for) {
  using A = acc_t<T>;
  const RoiAlignParams& p = maps[0].p;
  const std::vector<ForwardItem> order = forward_order(maps, rois, level);
  const double bins = static_cast<double>(p.pooled_height * p.pooled_width);
  const auto steps = [&](double touched, int64_t rois_) {
    return (4.0 * touched + 3.0 * bins * static_cast<double>(rois_)) * static_cast<double>(p.channels) / kLanes<A>;
  };
  const auto image_of = [&](int64_t k) { return static_cast<int64_t>(rois[k * 5]); };

  // Level by level and image by image. Channels side by side are read where they are. Channels apart: copy what the
  // RoIs of an image touch, or, where they touch as much as there is, the image once, some channels at a time so that
  // the copy stays in cache.
  std::vector<int64_t> direct, by_patch;  // positions in `order`
  double direct_touched = 0, patch_touched = 0;
  Scratch<A> copy;
  for (int64_t begin = 0, end; begin < p.rois; begin = end) {
    const int l = order[begin].level;
    const int64_t image = l < 0 ? 0 : image_of(order[begin].k);
    double touched = 0;
    for (end = begin; end < p.rois && order[end].level == l && (l < 0 || image_of(order[end].k) == image); ++end)
      touched += order[end].touched;
    const RoiAlignMap& map = maps[std::max(l, 0)];
    const int64_t* s = map.strides;
    const int64_t height = map.p.height, width = map.p.width, pixels = height * width;
    const bool side_by_side = l < 0 || s[1] == 1 || p.channels == 1;
    if (side_by_side || touched < kCopyImageFrom * static_cast<double>(pixels)) {
      for (int64_t i = begin; i < end; ++i) (side_by_side ? direct : by_patch).push_back(i);
      (side_by_side ? direct_touched : patch_touched) += touched;
      continue;
    }
    const int64_t block =
        channel_block(p.channels, std::clamp<int64_t>(kCopyBytes / (pixels * int64_t(sizeof(A))), 16, 256));
    A* copied = copy.at_least(pixels * block);
    for (int64_t c0 = 0; c0 < p.channels; c0 += block) {
      const int64_t channels = std::min(block, p.channels - c0);
      const T* from = static_cast<const T*>(map.data) + image * s[0] + c0 * s[1];
      share(parallel_for, workers_for(static_cast<double>(pixels * channels) / kLanes<A>), height, 4,
            [&](ItemQueue& queue) {
              for (int64_t y, last; queue.take(y, last);)
                for (; y < last; ++y)
                  transpose_any(from + y * s[2], s[1], s[3], channels, width, copied + y * width * channels, channels);
            });
      share(parallel_for, workers_for(steps(touched, end - begin)), end - begin, 4, [&](ItemQueue& queue) {
        ForwardWorker<T> worker(maps, rois, output, channels_last);
        for (int64_t i, last; queue.take(i, last);)
          for (; i < last; ++i)
            if (worker.select(order[begin + i]))
              worker.from_map(static_cast<const A*>(copied), width * channels, channels, c0, channels);
            else
              worker.constant(c0, channels);
      });
    }
  }

  // The positions in `list`, about `wanted` channels at a time; a thread takes so many RoIs, or one block of channels.
  const auto pool = [&](const std::vector<int64_t>& list, int64_t wanted, int64_t rois_at_a_time, double work) {
    const int64_t block = channel_block(p.channels, wanted), blocks = (p.channels + block - 1) / block;
    const int64_t items = static_cast<int64_t>(list.size()) * blocks;
    if (items == 0) return;
    share(parallel_for, workers_for(work), items, std::max<int64_t>(rois_at_a_time * blocks, 1), [&](ItemQueue& queue) {
      ForwardWorker<T> worker(maps, rois, output, channels_last);
      for (int64_t i, end; queue.take(i, end);)
        for (; i < end; ++i) {
          const ForwardItem& item = order[list[i / blocks]];
          const int64_t c0 = i % blocks * block, channels = std::min(block, p.channels - c0);
          if (!worker.select(item)) {
            worker.constant(c0, channels);
            continue;
          }
          const RoiAlignMap& map = maps[item.level];
          const int64_t* s = map.strides;
          const T* image = static_cast<const T*>(map.data) + image_of(item.k) * s[0] + c0 * s[1];
          if (s[1] == 1 || p.channels == 1)
            worker.from_map(image, s[2], s[3], c0, channels);
          else
            worker.from_any(image, s + 1, c0, channels);
        }
    });
  };
  pool(direct, 384, 4, steps(direct_touched, static_cast<int64_t>(direct.size())));
  pool(by_patch, 64, 0, 2 * steps(patch_touched, static_cast<int64_t>(by_patch.size())));
}
