// The best pixel of bicubically resized maps, most of which is never computed; once per instruction set
// (foreach_isa.h).
//
// Between four pixels of the map lies a cell of the result, whose values come from 4 x 4 pixels and are bounded by the
// least and the largest of them. Only cells whose bound reaches the best value found so far are computed: a handful
// around the peak of a trained network's map, instead of all 57 x 57.

#include "common/cpu/vec.h"

template <class T>
inline T fused(T a, T b, T c) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
#if STRUCTOPS_ISA_AVX2
    return std::is_same_v<T, float> ? T(__builtin_fmaf(a, b, c)) : T(__builtin_fma(a, b, c));
#else
    return a * b + c;
#endif
  } else {
    return multiply_add(a, b, c);
  }
}

#include "heatmaps_to_keypoints/keypoint_maths.h"

// Weights of every pixel of the result along one axis, and where each cell begins.
template <class T>
struct AxisTable {
  std::vector<T> weights[4];  // [size], and a vector more
  std::vector<int> begin;     // [extent + 2]: pixel of the result where cell low + 1 begins

  void fill(const BicubicAxis<T>& axis) {
    for (auto& w : weights) w.resize(axis.size + kLanes<T>);
    begin.assign(axis.extent + 2, axis.size);
    int cell = 0;
    for (int at = 0; at < axis.size; ++at) {
      T w[4];
      axis.weights(at, w);
      for (int j = 0; j < 4; ++j) weights[j][at] = w[j];
      for (const int mine = axis.low(at) + 1; cell <= mine; ++cell) begin[cell] = at;
    }
  }
  bool empty(int cell) const { return begin[cell] == begin[cell + 1]; }
};

template <class T>
class Heatmap {
  static constexpr int W = kLanes<T>;
  using V = Vec<T>;
  const int height_, width_, rows_, cells_;  // rows of padded_; cells in a row of them, a multiple of W
  const int64_t pitch_;
  std::vector<T> padded_;        // [H + 4, pitch]: the map with its edges repeated
  std::vector<T> least_, most_;  // [H + 4, cells]: of four neighbours in a row
  std::vector<T> bounds_;        // [H + 1, cells]
  std::vector<T> row_bounds_;    // [H + 1]
  bool finite_ = true;

 public:
  Heatmap(int height, int width)
      : height_(height),
        width_(width),
        rows_(height + 4),
        cells_((width + W) / W * W),
        pitch_(cells_ + std::max(W, 4)),  // a cell reads four pixels, and baseline doubles come by two
        padded_(rows_ * pitch_),
        least_(int64_t(rows_) * cells_),
        most_(least_.size()),
        bounds_(int64_t(height + 1) * cells_),
        row_bounds_(height + 1) {}

  template <class S>
  void read(const S* map) {
    V not_finite{};
    for (int r = 0; r < height_; ++r) {
      T* row = padded_.data() + (r + 2) * pitch_;
      const S* from = map + int64_t(r) * width_;
      int c = 0;
      for (; c + W <= width_; c += W) {
        const V v = load(from + c);
        store(row + 2 + c, v);
        not_finite += v - v;
      }
      if (c < width_) {
        const V v = load_part(from + c, width_ - c);
        store(row + 2 + c, v);
        not_finite += v - v;
      }
      row[0] = row[1] = row[2];
      std::fill(row + 2 + width_, row + pitch_, row[1 + width_]);
    }
    for (const int r : {0, 1}) std::copy_n(padded_.data() + 2 * pitch_, pitch_, padded_.data() + r * pitch_);
    for (const int r : {height_ + 2, height_ + 3})
      std::copy_n(padded_.data() + (height_ + 1) * pitch_, pitch_, padded_.data() + r * pitch_);
    finite_ = true;
    for (int l = 0; l < W; ++l) finite_ = finite_ && not_finite[l] == T(0);
    if (finite_) find_bounds();
  }

  BestPixel<T> best(const AxisTable<T>& x, const AxisTable<T>& y, int width) const {
    BestPixel<T> best{-std::numeric_limits<T>::infinity(), std::numeric_limits<int>::max()};
    if (finite_) first_guess(x, y, width, best);
    for (int cy = 0; cy <= height_; ++cy) {
      if (y.empty(cy) || (finite_ && row_bounds_[cy] < best.value)) continue;
      for (int cx = 0; cx <= width_; ++cx)
        if (!x.empty(cx) && !(finite_ && bounds_[int64_t(cy) * cells_ + cx] < best.value))
          look_into(x, y, cy, cx, width, best);
    }
    return best;
  }

 private:
  void find_bounds() {
    for (int r = 0; r < rows_; ++r)
      for (int c = 0; c < cells_; c += W) {
        const T* p = padded_.data() + r * pitch_ + c;
        const V a = load(p), b = load(p + 1), d = load(p + 2), e = load(p + 3);
        store(&least_[int64_t(r) * cells_ + c], min(min(a, b), min(d, e)));
        store(&most_[int64_t(r) * cells_ + c], max(max(a, b), max(d, e)));
      }
    for (int cy = 0; cy <= height_; ++cy) {
      V of_row = broadcast<T>(-std::numeric_limits<T>::infinity());
      for (int c = 0; c < cells_; c += W) {
        const auto of_four = [&](const std::vector<T>& values, const auto& pick) {
          const T* p = &values[int64_t(cy) * cells_ + c];
          return pick(pick(load(p), load(p + cells_)), pick(load(p + 2 * cells_), load(p + 3 * cells_)));
        };
        const V low = of_four(least_, [](V a, V b) { return min(a, b); });
        const V high = of_four(most_, [](V a, V b) { return max(a, b); });
        const V bound = bicubic_bound(low, high, std::numeric_limits<T>::epsilon());
        store(&bounds_[int64_t(cy) * cells_ + c], bound);
        of_row = max(bound, of_row);
      }
      T most = of_row[0];
      for (int l = 1; l < W; ++l) most = std::max(most, T(of_row[l]));
      row_bounds_[cy] = most;
    }
  }

  // Of the row of cells with the largest bound the cell with the largest.
  void first_guess(const AxisTable<T>& x, const AxisTable<T>& y, int width, BestPixel<T>& best) const {
    int row = -1, cell = -1;
    for (int cy = 0; cy <= height_; ++cy)
      if (!y.empty(cy) && (row < 0 || row_bounds_[cy] > row_bounds_[row])) row = cy;
    const T* bounds = &bounds_[int64_t(row) * cells_];
    for (int cx = 0; cx <= width_; ++cx)
      if (!x.empty(cx) && (cell < 0 || bounds[cx] > bounds[cell])) cell = cx;
    look_into(x, y, row, cell, width, best);
  }

  // Computes the pixels of one cell.
  void look_into(const AxisTable<T>& x, const AxisTable<T>& y, int cy, int cx, int width, BestPixel<T>& best) const {
    const T* corner = padded_.data() + cy * pitch_ + cx;
    for (int column = x.begin[cx]; column < x.begin[cx + 1]; column += W) {
      const int count = std::min(x.begin[cx + 1] - column, W);
      const uint32_t lanes = static_cast<uint32_t>((uint64_t(1) << count) - 1);
      V weight[4], row[4];
      for (int j = 0; j < 4; ++j) weight[j] = load(&x.weights[j][column]);
      for (int j = 0; j < 4; ++j) {
        const T* p = corner + j * pitch_;
        row[j] = cubic_sum(broadcast(p[0]), broadcast(p[1]), broadcast(p[2]), broadcast(p[3]), weight[0], weight[1],
                           weight[2], weight[3]);
      }
      for (int at = y.begin[cy]; at < y.begin[cy + 1]; ++at) {
        const V value =
            cubic_sum(row[0], row[1], row[2], row[3], broadcast(y.weights[0][at]), broadcast(y.weights[1][at]),
                      broadcast(y.weights[2][at]), broadcast(y.weights[3][at]));
        // Those that are no number, too.
        uint32_t met = (bits(less_equal(broadcast(best.value), value)) | ~bits(less_equal(value, value))) & lanes;
        for (; met != 0; met &= met - 1) {
          const int l = std::countr_zero(met);
          best.offer(value[l], at * width + column + l);
        }
      }
    }
  }
};

template <class S, class T>
void keypoints_of_rois(const HeatmapSizes& sizes, const S* maps, const T* rois, T* keypoints, T* scores,
                       ItemQueue& queue) {
  Heatmap<T> heatmap(sizes.height, sizes.width);
  AxisTable<T> x, y;
  for (int64_t k, end; queue.take(k, end);) {
    const KeypointRoi<T> roi(rois + 4 * k);
    if (roi.finite) {
      x.fill(BicubicAxis<T>(sizes.width, roi.width));
      y.fill(BicubicAxis<T>(sizes.height, roi.height));
    }
    for (int64_t i = k * sizes.points; i < (k + 1) * sizes.points; ++i) {
      BestPixel<T> best{0, 0};
      if (roi.finite) {
        heatmap.read(maps + i * sizes.height * sizes.width);
        best = heatmap.best(x, y, roi.width);
      }
      write_keypoint(roi, best, keypoints + 3 * i, scores + i);
    }
  }
}
