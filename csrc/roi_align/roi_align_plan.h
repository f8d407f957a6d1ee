// One axis of one RoI as a sparse matrix [bins, touched pixels], for the CPU kernels.
//
// The mean of a bin's bilinear samples factors into (row weights) . map . (column weights)^T, so two
// of these are all a kernel needs to know of a RoI, and cost hardly depends on the sampling ratio:
// samples that meet at a pixel are one tap.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/roi_axis.h"
#include "roi_align/roi_align.h"

namespace structops::cpu {

template <class A>  // of the weights: float, or double for double maps
struct AxisTaps {
  std::vector<int64_t> pixels;  // those with a weight, ascending
  std::vector<int64_t> first;   // [bins + 1]: bin b has the taps first[b] .. first[b + 1]
  std::vector<int64_t> index;   // [taps] into pixels
  std::vector<A> weight;        // [taps]

  // mark: scratch.
  void build(const RoiAxis& axis, int64_t bins, std::vector<int64_t>& mark) {
    pixels.clear(), first.clear(), index.clear(), weight.clear();
    sum_.clear();
    first.push_back(0);
    for (int64_t b = 0; b < bins; ++b) {
      int64_t begin, end;
      axis.inside_range(b, begin, end);
      const size_t from = index.size();
      // By ascending position (an inverted box samples backwards), so equal pixels are neighbours.
      for (int64_t n = begin; n < end; ++n) {
        const RoiSample s = axis.sample(b, axis.bin < 0.0 ? end - 1 - (n - begin) : n);
        if (!s.inside) continue;
        add(from, s.low, 1.0 - s.fraction);
        if (s.fraction > 0.0) add(from, s.low + 1, s.fraction);
      }
      first.push_back(static_cast<int64_t>(index.size()));
    }
    for (double w : sum_) weight.push_back(static_cast<A>(w / static_cast<double>(axis.samples)));
    if (index.empty()) return;
    const auto [least, most] = std::minmax_element(index.begin(), index.end());
    const int64_t low = *least, high = *most;
    mark.assign(static_cast<size_t>(high - low + 1), -1);
    for (int64_t pixel : index) mark[static_cast<size_t>(pixel - low)] = 0;
    for (int64_t pixel = low; pixel <= high; ++pixel) {
      int64_t& m = mark[static_cast<size_t>(pixel - low)];
      if (m < 0) continue;
      m = static_cast<int64_t>(pixels.size());
      pixels.push_back(pixel);
    }
    for (int64_t& i : index) i = mark[static_cast<size_t>(i - low)];
  }

  // The same matrix by pixel: [touched pixels, bins]; index then counts bins.
  void transpose() {
    std::vector<int64_t> begin(pixels.size() + 1, 0), bin(index.size());
    std::vector<A> by_pixel(index.size());
    for (int64_t i : index) ++begin[static_cast<size_t>(i) + 1];
    for (size_t i = 1; i < begin.size(); ++i) begin[i] += begin[i - 1];
    std::vector<int64_t> next(begin);
    for (size_t b = 0; b + 1 < first.size(); ++b)
      for (int64_t t = first[b]; t < first[b + 1]; ++t) {
        const int64_t at = next[static_cast<size_t>(index[t])]++;
        bin[at] = static_cast<int64_t>(b);
        by_pixel[at] = weight[t];
      }
    first = std::move(begin), index = std::move(bin), weight = std::move(by_pixel);
  }

 private:
  void add(size_t from, int64_t pixel, double w) {
    for (size_t i = index.size(); i > from && index[i - 1] >= pixel; --i)
      if (index[i - 1] == pixel) {
        sum_[i - 1] += w;
        return;
      }
    index.push_back(pixel);
    sum_.push_back(w);
  }
  std::vector<double> sum_;
};

// About how many pixels of an axis a RoI touches, without looking at its samples.
inline double touched_estimate(const RoiAxis& axis, int64_t bins) {
  if (!axis.finite) return 0.0;
  const double last = axis.start + axis.bin * static_cast<double>(bins);
  const double low = std::max(std::min(axis.start, last), -1.0);
  const double high = std::min(std::max(axis.start, last), static_cast<double>(axis.extent));
  if (high < low) return 0.0;
  return std::min({high - low + 2.0, static_cast<double>(axis.extent),
                   2.0 * static_cast<double>(bins) * static_cast<double>(axis.samples)});
}

// Both axes of rois[k] ([K, 5]: batch index, x1, y1, x2, y2).
struct RoiAxes {
  RoiAxis y, x;
  RoiAxes(const RoiAlignParams& p, const double* roi)
      : y(roi[2], roi[4], p.spatial_scale, p.pooled_height, p.sampling_ratio, p.aligned, p.height),
        x(roi[1], roi[3], p.spatial_scale, p.pooled_width, p.sampling_ratio, p.aligned, p.width) {}
  bool finite() const { return y.finite && x.finite; }
};

// Channels a kernel works on at a time: all of them split evenly into blocks of about `wanted`.
inline int64_t channel_block(int64_t channels, int64_t wanted) {
  const int64_t blocks = std::max<int64_t>(channels / std::max<int64_t>(wanted, 1), 1);
  return (channels + blocks - 1) / blocks;
}

// Channels apart: the RoIs of an image are copied one by one (what they touch) up to this share of its
// pixels, from there on the whole image.
constexpr double kCopyImageFrom = 0.5;
// And of the whole image as many channels at a time as fit this: the copy then stays in the L3 cache.
constexpr int64_t kCopyBytes = int64_t{16} << 20;

struct ForwardItem {
  int64_t k;
  int level;
  double touched;  // pixels
};

// RoIs by level, image and place, so that neighbours find each other's pixels in cache.
inline std::vector<ForwardItem> forward_order(const RoiAlignMap* maps, const double* rois, const int8_t* level) {
  struct Key {
    int64_t image;
    double row, column;
    ForwardItem item;
  };
  const int64_t count = maps[0].p.rois;
  std::vector<Key> keys(static_cast<size_t>(count));
  for (int64_t k = 0; k < count; ++k) {
    const int l = level ? level[k] : 0;
    if (l < 0) {
      keys[k] = {0, 0.0, 0.0, {k, l, 0.0}};
      continue;
    }
    const RoiAlignParams& p = maps[l].p;
    const RoiAxes axes(p, rois + k * 5);
    const double touched = touched_estimate(axes.y, p.pooled_height) * touched_estimate(axes.x, p.pooled_width);
    keys[k] = {static_cast<int64_t>(rois[k * 5]), std::floor(axes.y.start / 16.0), axes.x.start, {k, l, touched}};
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    if (a.item.level != b.item.level) return a.item.level < b.item.level;
    if (a.image != b.image) return a.image < b.image;
    if (a.row != b.row) return a.row < b.row;
    return a.column != b.column ? a.column < b.column : a.item.k < b.item.k;
  });
  std::vector<ForwardItem> items;
  for (const Key& key : keys) items.push_back(key.item);
  return items;
}

// Tiles of grad_input of a size whose float sums take half of a 512 KB L2 cache.
struct TileGrid {
  int64_t height, width;  // of a tile
  int64_t down, across;   // tiles of an image
  TileGrid(const RoiAlignParams& p, int64_t channels, int64_t element_size, bool channels_last) {
    const int64_t pixels = std::max<int64_t>((int64_t{256} << 10) / (channels * element_size), 1);
    // Wide where rows are written plane by plane, square where a RoI should meet few tiles.
    width = std::min<int64_t>(p.width, channels_last && pixels <= 1024 ? 16 : 64);
    height = std::clamp<int64_t>(pixels / width, 1, p.height);
    down = (p.height + height - 1) / height;
    across = (p.width + width - 1) / width;
  }
};

}  // namespace structops::cpu
