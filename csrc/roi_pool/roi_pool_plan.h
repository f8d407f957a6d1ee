// The bins of all RoIs of a call, and the order in which the CPU kernels go through them.
#pragma once
#include <algorithm>
#include <cmath>
#include <compare>
#include <cstdint>
#include <vector>

#include "common/cpu/parallel.h"
#include "roi_pool/roi_pool.h"
#include "roi_pool/roi_pool_bins.h"

namespace structops::cpu {

// Bins of one RoI along one axis: bin p has pixels [first[p], last[p]). Neither ever falls.
struct AxisBins {
  const int32_t *first, *last;
  int64_t count;
  int64_t begin() const { return first[0]; }  // of all bins together
  int64_t end() const { return last[count - 1]; }
  int64_t total() const {
    int64_t n = 0;
    for (int64_t p = 0; p < count; ++p) n += std::max(last[p] - first[p], 0);
    return n;
  }
  int64_t longest() const {
    int64_t n = 0;
    for (int64_t p = 0; p < count; ++p) n = std::max<int64_t>(n, last[p] - first[p]);
    return n;
  }
};

class BinTable {
 public:
  // Room after a row of the table, so that a vector can be read at any bin.
  static constexpr int64_t kPadding = 16;

  BinTable(const RoiPoolParams& p, const double* rois, ParallelFor parallel_for)
      : height_(p.pooled_height),
        width_(p.pooled_width),
        edges_(static_cast<size_t>(p.rois * stride() + kPadding)),
        finite_(static_cast<size_t>(p.rois)) {
    const double steps = static_cast<double>(p.rois * (height_ + width_)) * 20;  // two divisions
    share(parallel_for, workers_for(steps), p.rois, 64, [&](ItemQueue& queue) {
      for (int64_t k, end; queue.take(k, end);)
        for (; k < end; ++k) {
          const double* roi = rois + k * 5;
          const RoiBins y(roi[2], roi[4], p.spatial_scale, p.height), x(roi[1], roi[3], p.spatial_scale, p.width);
          finite_[k] = y.finite && x.finite;
          int32_t* edges = edges_.data() + k * stride();
          for (int64_t i = 0; i < height_; ++i) y.bin(i, height_, edges[i], edges[height_ + i]);
          edges += 2 * height_;
          for (int64_t i = 0; i < width_; ++i) x.bin(i, width_, edges[i], edges[width_ + i]);
        }
    });
  }

  bool finite(int64_t k) const { return finite_[k] != 0; }
  AxisBins rows(int64_t k) const { return at(k * stride(), height_); }
  AxisBins columns(int64_t k) const { return at(k * stride() + 2 * height_, width_); }
  // Pixels read for all bins of a RoI, those that bins share as often as they are read.
  double reads(int64_t k) const {
    const AxisBins y = rows(k), x = columns(k);
    return finite(k) ? static_cast<double>(y.total()) * static_cast<double>(x.total()) : 0.0;
  }

 private:
  int64_t stride() const { return 2 * (height_ + width_); }
  AxisBins at(int64_t offset, int64_t count) const {
    return {edges_.data() + offset, edges_.data() + offset + count, count};
  }
  int64_t height_, width_;
  std::vector<int32_t> edges_;  // [K, 2 * (PH + PW)]: first of each row, last of each row, then of columns
  std::vector<uint8_t> finite_;
};

// RoIs by image and place, so that neighbours find each other's pixels in cache: 1000 RoIs on a 200 x 336 map share
// each pixel between three.
inline std::vector<int64_t> order_by_place(const RoiPoolParams& p, const double* rois, const BinTable& table) {
  struct Key {
    int64_t image, band, column, k;
    auto operator<=>(const Key&) const = default;
  };
  std::vector<Key> keys(static_cast<size_t>(p.rois));
  for (int64_t k = 0; k < p.rois; ++k)
    keys[k] = {static_cast<int64_t>(rois[k * 5]), table.rows(k).begin() / 16, table.columns(k).begin(), k};
  std::sort(keys.begin(), keys.end());
  std::vector<int64_t> order;
  for (const Key& key : keys) order.push_back(key.k);
  return order;
}

// Some RoIs of one image: positions [begin, end) in the order.
struct RoiRun {
  int64_t image, begin, end;
};

// The runs of an order, of at most `most` RoIs each.
inline std::vector<RoiRun> runs_of(const std::vector<int64_t>& order, const double* rois, int64_t most) {
  std::vector<RoiRun> runs;
  for (int64_t i = 0; i < static_cast<int64_t>(order.size()); ++i) {
    const int64_t image = static_cast<int64_t>(rois[order[i] * 5]);
    if (runs.empty() || runs.back().image != image || runs.back().end - runs.back().begin == most)
      runs.push_back({image, i, i});
    runs.back().end = i + 1;
  }
  return runs;
}

// Channels a kernel works on at a time: all of them split evenly into blocks of about `wanted`.
inline int64_t even_block(int64_t channels, int64_t wanted) {
  const int64_t blocks = std::max<int64_t>(channels / std::max<int64_t>(wanted, 1), 1);
  return (channels + blocks - 1) / blocks;
}

}  // namespace structops::cpu
