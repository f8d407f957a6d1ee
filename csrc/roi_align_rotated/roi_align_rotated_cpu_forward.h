// Forward. A RoI's taps are found once, then every bin is a weighted sum of pixels with channels side by side. Finding
// them costs some 50 ns a bin, summing 11 pixels of 256 channels about 100.

template <class T>
class RotatedForward {
  using A = acc_t<T>;

 public:
  RotatedForward(const RoiAlignParams& p, const std::vector<RotatedRoi>& rois, T* output, bool channels_last)
      : p_(p), rois_(rois), output_(output), channels_last_(channels_last) {}

  // Channels [c0, c0 + channels) of RoI k from a map whose pixel (y, x) is at map + (y * stride_y + x * stride_x) *
  // unit, channels side by side.
  template <class S>
  void from_map(int64_t k, const S* map, int64_t stride_y, int64_t stride_x, int64_t unit, int64_t c0,
                int64_t channels) {
    if (!rois_[k].finite) return not_a_number(k, c0, channels);
    if (k != k_) taps_.build(p_, rois_[k], stride_y, stride_x, merger_, [](int64_t, int64_t) {});
    k_ = k;
    pool(k, map, unit, c0, channels);
  }

  // The same from any layout: image is that of the RoI's batch index and channel c0, strides (c, h, w). Copies the
  // touched pixels into a patch with channels side by side: of each row those from its first to its last.
  void from_any(int64_t k, const T* image, const int64_t* strides, int64_t c0, int64_t channels) {
    if (!rois_[k].finite) return not_a_number(k, c0, channels);
    if (k != k_) {
      box_ = rois_[k].pixels(p_.width, p_.height);
      const int64_t rows = box_.x0 > box_.x1 ? 0 : box_.y1 - box_.y0 + 1, columns = box_.x1 - box_.x0 + 1;
      row_first_.assign(static_cast<size_t>(rows), p_.width);
      row_last_.assign(static_cast<size_t>(rows), -1);
      taps_.build(p_, rois_[k], columns, 1, merger_, [&](int64_t y, int64_t x) {
        int64_t &first = row_first_[y - box_.y0], &last = row_last_[y - box_.y0];
        first = std::min(first, x), last = std::max(last, x);
      });
      // From the patch's first pixel on.
      for (int64_t& offset : taps_.offset) offset -= box_.y0 * columns + box_.x0;
    }
    k_ = k;
    const int64_t rows = static_cast<int64_t>(row_first_.size()), columns = box_.x1 - box_.x0 + 1;
    A* patch = patch_.at_least(rows * columns * channels + 1);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t first = row_first_[row], n = row_last_[row] - first + 1;
      if (n > 0)
        transpose_any(image + (box_.y0 + row) * strides[1] + first * strides[2], strides[0], strides[2], channels, n,
                      patch + (row * columns + first - box_.x0) * channels, channels);
    }
    pool(k, static_cast<const A*>(patch), channels, c0, channels);
  }

 private:
  template <class S>
  void pool(int64_t k, const S* data, int64_t unit, int64_t c0, int64_t channels) {
    const int64_t bins = p_.pooled_height * p_.pooled_width,
                  padded = (channels + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    T* output = output_ + k * p_.channels * bins;
    // Bins with channels side by side, before they are transposed into an NCHW output: some at a time.
    const int64_t group = std::clamp<int64_t>(kRotatedTileBytes / (padded * int64_t(sizeof(A))), 1, bins);
    A* tile = channels_last_ ? nullptr : tile_.at_least(group * padded);
    std::vector<const S*>& source = sources(data);
    for (int64_t begin = 0; begin < bins; begin += group) {
      const int64_t end = std::min(begin + group, bins);
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = taps_.first[b], taps = taps_.first[b + 1] - first;
        source.resize(static_cast<size_t>(taps));
        for (int64_t t = 0; t < taps; ++t) source[t] = data + taps_.offset[first + t] * unit;
        if (channels_last_)
          weighted_sum(source.data(), taps_.weight.data() + first, taps, output + b * p_.channels + c0, channels);
        else
          weighted_sum(source.data(), taps_.weight.data() + first, taps, tile + (b - begin) * padded, channels);
      }
      if (!channels_last_)
        transpose(static_cast<const A*>(tile), padded, end - begin, channels, output + c0 * bins + begin, bins);
    }
  }

  void not_a_number(int64_t k, int64_t c0, int64_t channels) {
    const int64_t bins = p_.pooled_height * p_.pooled_width;
    T* output = output_ + k * p_.channels * bins;
    const T nan = static_cast<T>(std::numeric_limits<A>::quiet_NaN());
    if (!channels_last_)
      std::fill_n(output + c0 * bins, channels * bins, nan);
    else
      for (int64_t b = 0; b < bins; ++b) std::fill_n(output + b * p_.channels + c0, channels, nan);
  }

  template <class S>
  std::vector<const S*>& sources(const S*) {
    if constexpr (std::is_same_v<S, A>)
      return accumulated_source_;
    else
      return storage_source_;
  }

  const RoiAlignParams& p_;
  const std::vector<RotatedRoi>& rois_;
  T* output_;
  const bool channels_last_;
  int64_t k_ = -1;  // whose taps there are
  RotatedTaps<A> taps_;
  BinMerger merger_;
  PixelBox box_{};
  std::vector<int64_t> row_first_, row_last_;  // [rows of box_] touched columns
  std::vector<const A*> accumulated_source_;
  std::vector<const T*> storage_source_;
  Scratch<A> tile_, patch_;
};

template <class T>
void roi_align_rotated_forward(const RoiAlignParams& p, bool clockwise, const T* input, const int64_t s[4],
                               const double* rows, T* output, bool channels_last, ParallelFor parallel_for) {
  using A = acc_t<T>;
  std::vector<RotatedRoi> rois;
  for (int64_t k = 0; k < p.rois; ++k) rois.push_back(rotated_roi(p, clockwise, rows + k * 6));
  const std::vector<int64_t> order = rotated_order(rois, rows);
  const auto image_of = [&](int64_t k) { return static_cast<int64_t>(rows[k * 6]); };
  const double bins = static_cast<double>(p.pooled_height * p.pooled_width);
  const auto steps = [&](int64_t count) {  // by the dozen taps that a bin has
    return 12.0 * bins * static_cast<double>(count) * (static_cast<double>(p.channels) / kLanes<A> + 12.0);
  };

  if (s[1] == 1 || p.channels == 1) {
    const int64_t block = channel_block(p.channels, 384), blocks = (p.channels + block - 1) / block;
    share(parallel_for, workers_for(steps(p.rois)), p.rois * blocks, 4 * blocks, [&](ItemQueue& queue) {
      RotatedForward<T> worker(p, rois, output, channels_last);
      for (int64_t i, end; queue.take(i, end);)
        for (; i < end; ++i) {
          const int64_t k = order[i / blocks], c0 = i % blocks * block;
          worker.from_map(k, input + image_of(k) * s[0] + c0, s[2], s[3], 1, c0, std::min(block, p.channels - c0));
        }
    });
    return;
  }

  // Channels apart: copy what each RoI touches, or, where the RoIs of an image touch as much as there is, the image
  // once, some channels at a time so that the copy stays in cache (as RoI Align does).
  std::vector<int64_t> by_patch;
  Scratch<A> copy;
  for (int64_t begin = 0, end; begin < p.rois; begin = end) {
    const int64_t image = image_of(order[begin]), pixels = p.height * p.width;
    double touched = 0;
    for (end = begin; end < p.rois && image_of(order[end]) == image; ++end) {
      const RotatedRoi& roi = rois[order[end]];
      const PixelBox box = roi.pixels(p.width, p.height);
      // Of the pixels in the box around it about as many as its own area and rim have.
      const double sides = std::fabs(2.0 * roi.x.start) + std::fabs(2.0 * roi.y.start);
      const double area = 4.0 * std::fabs(roi.x.start * roi.y.start) + 2.0 * sides + 4.0;
      touched += std::min(area, static_cast<double>(box.x1 - box.x0 + 1) * static_cast<double>(box.y1 - box.y0 + 1));
    }
    if (touched < kCopyImageFrom * static_cast<double>(pixels)) {
      by_patch.insert(by_patch.end(), order.begin() + begin, order.begin() + end);
      continue;
    }
    const int64_t block =
        channel_block(p.channels, std::clamp<int64_t>(kCopyBytes / (pixels * int64_t(sizeof(A))), 16, 256));
    A* map = copy.at_least(pixels * block);
    for (int64_t c0 = 0; c0 < p.channels; c0 += block) {
      const int64_t channels = std::min(block, p.channels - c0);
      const T* from = input + image * s[0] + c0 * s[1];
      share(parallel_for, workers_for(static_cast<double>(pixels * channels) / kLanes<A>), p.height, 4,
            [&](ItemQueue& queue) {
              for (int64_t y, last; queue.take(y, last);)
                for (; y < last; ++y)
                  transpose_any(from + y * s[2], s[1], s[3], channels, p.width, map + y * p.width * channels, channels);
            });
      share(parallel_for, workers_for(steps(end - begin)), end - begin, 4, [&](ItemQueue& queue) {
        RotatedForward<T> worker(p, rois, output, channels_last);
        for (int64_t i, last; queue.take(i, last);)
          for (; i < last; ++i)
            worker.from_map(order[begin + i], static_cast<const A*>(map), p.width, 1, channels, c0, channels);
      });
    }
  }
  const int64_t block = channel_block(p.channels, 64), blocks = (p.channels + block - 1) / block;
  const int64_t count = static_cast<int64_t>(by_patch.size());
  share(parallel_for, workers_for(2 * steps(count)), count * blocks, blocks, [&](ItemQueue& queue) {
    RotatedForward<T> worker(p, rois, output, channels_last);
    for (int64_t i, end; queue.take(i, end);)
      for (; i < end; ++i) {
        const int64_t k = by_patch[i / blocks], c0 = i % blocks * block;
        worker.from_any(k, input + image_of(k) * s[0] + c0 * s[1], s + 1, c0, std::min(block, p.channels - c0));
      }
  });
}
