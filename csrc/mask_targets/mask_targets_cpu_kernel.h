// Targets of a mask head from bitmaps, compiled once per instruction set (foreach_isa.h).
//
// RoI Align factors into weights along each axis. Of a row of the target first the rows of the bitmap are added, all
// columns of the box at once, as they lie in memory and in their own type; then each bin takes its columns. Of a box of
// 200 x 200 pixels and a target of 28 x 28 that is a tenth of the operations of sample by sample.

template <class T>
struct MaskTaps {
  struct Tap {
    int pixel;
    T weight;
  };
  std::vector<Tap> taps;
  std::vector<int> begin;                // [bins + 1]
  int first_pixel = 0, last_pixel = -1;  // of all taps

  void fill(const RoiAxis& axis, int bins) {
    taps.clear();
    begin.assign(1, 0);
    first_pixel = std::numeric_limits<int>::max(), last_pixel = -1;
    for (int p = 0; p < bins; ++p) {
      int64_t first, last;
      axis.inside_range(p, first, last);
      for_each_tap(axis, p, first, last, [&](int pixel, double weight) {
        // A weight that vanishes in T must not turn an infinite pixel into NaN.
        if (static_cast<T>(weight) == T(0)) return;
        taps.push_back({pixel, static_cast<T>(weight)});
        first_pixel = std::min(first_pixel, pixel), last_pixel = std::max(last_pixel, pixel);
      });
      begin.push_back(static_cast<int>(taps.size()));
    }
  }
};

template <class S, class T>
void targets_of_boxes(const MaskTargetSizes& sizes, const S* masks, const T* boxes, const int64_t* matched, T* targets,
                      ItemQueue& queue) {
  MaskTaps<T> x, y;
  std::vector<T> sums(sizes.width);
  for (int64_t k, end; queue.take(k, end);) {
    T* target = targets + k * sizes.rows * sizes.columns;
    const T* box = boxes + 4 * k;
    const RoiAxis across = mask_axis(box[0], box[2], sizes.columns, sizes.width);
    const RoiAxis down = mask_axis(box[1], box[3], sizes.rows, sizes.height);
    if (!across.finite || !down.finite) {
      std::fill_n(target, int64_t(sizes.rows) * sizes.columns, std::numeric_limits<T>::quiet_NaN());
      continue;
    }
    x.fill(across, sizes.columns);
    y.fill(down, sizes.rows);
    const int left = x.first_pixel, count = x.last_pixel - left + 1;
    const S* mask = masks + matched[k] * sizes.height * sizes.width;
    for (int p = 0; p < sizes.rows; ++p, target += sizes.columns) {
      std::fill_n(sums.data(), std::max(count, 0), T(0));
      for (int i = y.begin[p]; count > 0 && i < y.begin[p + 1]; ++i) {
        const S* row = mask + y.taps[i].pixel * sizes.width + left;
        const T weight = y.taps[i].weight;
        T* sum = sums.data();
        for (int c = 0; c < count; ++c) sum[c] += weight * static_cast<T>(row[c]);
      }
      for (int q = 0; q < sizes.columns; ++q) {
        T value = 0;
        for (int i = x.begin[q]; i < x.begin[q + 1]; ++i) value += x.taps[i].weight * sums[x.taps[i].pixel - left];
        target[q] = value;
      }
    }
  }
}

// From polygons: a row of pixels at a time, in which each edge that the row crosses toggles the pixels left of it.
template <class T>
void polygon_targets_of_boxes(const Polygons& polygons, const double* boxes, const int64_t* matched, int rows,
                              int columns, T* targets, ItemQueue& queue) {
  std::vector<double> centres(columns);
  std::vector<uint8_t> odd(columns), inside(columns);
  for (int64_t k, end; queue.take(k, end);) {
    T* target = targets + k * rows * columns;
    const double* box = boxes + 4 * k;
    const TargetAxis x(box[0], box[2], columns), y(box[1], box[3], rows);
    if (!x.finite() || !y.finite()) {
      std::fill_n(target, int64_t(rows) * columns, std::numeric_limits<T>::quiet_NaN());
      continue;
    }
    for (int q = 0; q < columns; ++q) centres[q] = x.centre(q);
    for (int p = 0; p < rows; ++p, target += columns) {
      const double line = y.centre(p);
      std::fill(inside.begin(), inside.end(), uint8_t(0));
      for (int64_t r = polygons.object(matched[k]); r < polygons.object(matched[k] + 1); ++r) {
        const int64_t first = polygons.ring(r), last = polygons.ring(r + 1);
        bool met = false;
        for (int64_t v = first; v < last; ++v) {
          const double* a = polygons.points + 2 * v;
          const double* b = polygons.points + 2 * (v + 1 < last ? v + 1 : first);
          if (!edge_crosses(a, b, line)) continue;
          if (!met) std::fill(odd.begin(), odd.end(), uint8_t(0));
          met = true;
          const double crossing = edge_crossing(a, b, line);
          for (int q = 0; q < columns; ++q) odd[q] ^= uint8_t(centres[q] < crossing);
        }
        for (int q = 0; met && q < columns; ++q) inside[q] |= odd[q];
      }
      for (int q = 0; q < columns; ++q) target[q] = inside[q];
    }
  }
}
