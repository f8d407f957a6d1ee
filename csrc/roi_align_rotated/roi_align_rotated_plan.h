// Bins of rotated boxes as weighted pixels, and the order of work, for the CPU kernels.
//
// Rotation leaves nothing to factor: a bin is a list of pixels. Samples that meet at a pixel are merged, which
// leaves 11 of the 16 taps of 2 x 2 samples a little over a pixel apart.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "roi_align_rotated/rotated_roi.h"

namespace structops::cpu {

// A map's size.
struct MapSize {
  int64_t width, height;
  RoiWindow window() const { return {-1.0, static_cast<double>(width), -1.0, static_cast<double>(height)}; }
};

inline RotatedRoi rotated_roi(const RoiAlignParams& p, bool clockwise, const double* row) {
  return RotatedRoi::of(p, clockwise, row[1], row[2], row[3], row[4], row[5]);
}

// Merges the samples of one bin at a time.
class BinMerger {
 public:
  // Calls emit(y, x, weight) once for each pixel of bin (ph, pw) that has a weight from the samples around a window;
  // local: of that window.
  template <class Emit>
  void each_pixel(const RotatedRoi& roi, int64_t ph, int64_t pw, const RoiWindow& local, const MapSize& map,
                  const Emit& emit) {
    const SampleRange range = roi.samples_in(ph, pw, local);
    const int64_t samples = range.count();
    if (samples == 0) return;
    const double ax = roi.x.at(pw, range.x0), bx = roi.x.at(pw, range.x1 - 1);
    const double ay = roi.y.at(ph, range.y0), by = roi.y.at(ph, range.y1 - 1);
    const PixelBox box =
        roi.pixels(0.5 * (ax + bx), 0.5 * (ay + by), 0.5 * (bx - ax), 0.5 * (by - ay), map.width, map.height);
    if (box.x0 > box.x1) return;
    const int64_t columns = box.x1 - box.x0 + 1, rows = box.y1 - box.y0 + 1;
    const double share = 1.0 / (static_cast<double>(roi.x.samples) * static_cast<double>(roi.y.samples));
    const auto each_tap = [&](const auto& add) {
      for (int64_t i = range.y0; i < range.y1; ++i) {
        const double along_y = roi.y.at(ph, i);
        for (int64_t j = range.x0; j < range.x1; ++j) {
          const double along_x = roi.x.at(pw, j);
          const RoiSample y = roi_sample(roi.map_y(along_x, along_y), map.height);
          const RoiSample x = roi_sample(roi.map_x(along_x, along_y), map.width);
          if (!y.inside || !x.inside) continue;
          const double upper = 1.0 - y.fraction, left = 1.0 - x.fraction;
          add(y.low, x.low, upper * left);
          if (x.fraction > 0.0) add(y.low, x.low + 1, upper * x.fraction);
          if (y.fraction > 0.0) add(y.low + 1, x.low, y.fraction * left);
          if (x.fraction > 0.0 && y.fraction > 0.0) add(y.low + 1, x.low + 1, y.fraction * x.fraction);
        }
      }
    };
    if (columns <= 8 && rows <= 8) {  // nearly always: a grid of 64 sums, and a bit for each in use
      uint64_t used = 0;
      each_tap([&](int64_t y, int64_t x, double weight) {
        const int64_t cell = (y - box.y0) * 8 + (x - box.x0);
        grid_[cell] += weight;
        used |= uint64_t{1} << cell;
      });
      for (; used != 0; used &= used - 1) {
        const int cell = std::countr_zero(used);
        emit(box.y0 + cell / 8, box.x0 + cell % 8, grid_[cell] * share);
        grid_[cell] = 0.0;
      }
    } else if (static_cast<double>(columns) * static_cast<double>(rows) <= 32.0 * static_cast<double>(samples)) {
      sums_.assign(static_cast<size_t>(columns * rows), 0.0);
      each_tap([&](int64_t y, int64_t x, double weight) { sums_[(y - box.y0) * columns + (x - box.x0)] += weight; });
      for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < columns; ++x)
          if (sums_[y * columns + x] != 0.0) emit(box.y0 + y, box.x0 + x, sums_[y * columns + x] * share);
    } else {  // few samples far apart
      list_.clear();
      each_tap([&](int64_t y, int64_t x, double weight) { list_.emplace_back(y * map.width + x, weight); });
      std::stable_sort(list_.begin(), list_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t i = 0, j; i < list_.size(); i = j) {
        double sum = 0.0;
        for (j = i; j < list_.size() && list_[j].first == list_[i].first; ++j) sum += list_[j].second;
        emit(list_[i].first / map.width, list_[i].first % map.width, sum * share);
      }
    }
  }

 private:
  double grid_[64] = {};
  std::vector<double> sums_;
  std::vector<std::pair<int64_t, double>> list_;
};

// The bins of one RoI as a sparse matrix [bins, pixels].
template <class A>
struct RotatedTaps {
  std::vector<int64_t> first;   // [bins + 1]: bin b has the taps first[b] .. first[b + 1]
  std::vector<int64_t> offset;  // [taps] of the pixel: y * stride_y + x * stride_x
  std::vector<A> weight;        // [taps]

  // touch(y, x): called for each tap too.
  template <class Touch>
  void build(const RoiAlignParams& p, const RotatedRoi& roi, int64_t stride_y, int64_t stride_x, BinMerger& merger,
             const Touch& touch) {
    const MapSize map{p.width, p.height};
    const RoiWindow local = roi.local(map.window());
    first.clear(), offset.clear(), weight.clear();
    first.push_back(0);
    for (int64_t ph = 0; ph < p.pooled_height; ++ph)
      for (int64_t pw = 0; pw < p.pooled_width; ++pw) {
        merger.each_pixel(roi, ph, pw, local, map, [&](int64_t y, int64_t x, double w) {
          // A weight that vanishes in A must not turn an infinite pixel into NaN.
          if (static_cast<A>(w) == A(0)) return;
          offset.push_back(y * stride_y + x * stride_x);
          weight.push_back(static_cast<A>(w));
          touch(y, x);
        });
        first.push_back(static_cast<int64_t>(offset.size()));
      }
  }
};

// RoIs by image and place, so that neighbours find each other's pixels in cache.
inline std::vector<int64_t> rotated_order(const std::vector<RotatedRoi>& all, const double* rois) {
  std::vector<int64_t> order(all.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = static_cast<int64_t>(k);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (rois[a * 6] != rois[b * 6]) return rois[a * 6] < rois[b * 6];
    const double row_a = std::floor(all[a].center_y / 16.0), row_b = std::floor(all[b].center_y / 16.0);
    if (row_a != row_b) return row_a < row_b;
    return all[a].center_x != all[b].center_x ? all[a].center_x < all[b].center_x : a < b;
  });
  return order;
}

}  // namespace structops::cpu
