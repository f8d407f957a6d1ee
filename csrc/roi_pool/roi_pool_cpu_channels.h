// Forward, channels side by side: vectors over channels, bin by bin, with the maxima in registers.
//
// A column's maximum over the rows of a row of bins could be shared between the bins beside each other. Counted for
// 7 x 7 bins over 13 x 13 pixels, the mean of a box head: 7 rows of bins x 2.9 rows x 13 columns + 49 bins x 2.9 = 400
// vector steps, and a row of maxima (and of their places) to be stored and read again, against (7 x 2.9)^2 = 410 here.

// The largest of rows x columns pixels (at least one), channels [0, U * kLanes), at src + y * stride_y + x * stride_x.
// here: index of the first pixel; width: that of the map.
template <bool kArgmax, int U, class T>
inline void largest_of_block(const T* src, int64_t rows, int64_t columns, int64_t stride_y, int64_t stride_x,
                             int64_t here, int64_t width, T* output, int32_t* argmax) {
  using A = acc_t<T>;
  Vec<A> best[U];
  Indices<A> at[U];
  for (int u = 0; u < U; ++u) {
    best[u] = load(src + u * kLanes<A>);
    at[u] = broadcast_index<A>(here);
  }
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = y == 0; x < columns; ++x) {
      const T* pixel = src + y * stride_y + x * stride_x;
      const Indices<A> index = broadcast_index<A>(here + y * width + x);
      for (int u = 0; u < U; ++u) {
        const Vec<A> v = load(pixel + u * kLanes<A>);
        const auto more = beats(v, best[u]);
        best[u] = select(more, v, best[u]);
        if constexpr (kArgmax) at[u] = select(more, index, at[u]);
      }
    }
  for (int u = 0; u < U; ++u) {
    store(output + u * kLanes<A>, best[u]);
    if constexpr (kArgmax) store_indices(argmax + u * kLanes<A>, at[u]);
  }
}

template <bool kArgmax, class T>
inline void largest_of(const T* src, int64_t channels, int64_t rows, int64_t columns, int64_t stride_y,
                       int64_t stride_x, int64_t here, int64_t width, T* output, int32_t* argmax) {
  using A = acc_t<T>;
  constexpr int U = STRUCTOPS_VECTOR_BYTES == 64 ? 8 : 4;  // with as many indices, half of the registers
  int64_t i = 0;
  const auto blocks = [&](auto width_) {
    constexpr int n = decltype(width_)::value;
    for (; i + n * kLanes<A> <= channels; i += n * kLanes<A>)
      largest_of_block<kArgmax, n>(src + i, rows, columns, stride_y, stride_x, here, width, output + i,
                                   kArgmax ? argmax + i : nullptr);
  };
  blocks(std::integral_constant<int, U>());
  blocks(std::integral_constant<int, 1>());
  if (i == channels) return;
  if (channels >= kLanes<A>) {  // the last vector moves back over its neighbour
    i = channels - kLanes<A>;
    return blocks(std::integral_constant<int, 1>());
  }
  for (; i < channels; ++i) {
    A best = static_cast<A>(src[i]);
    int64_t at = here;
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < columns; ++x) {
        const A v = static_cast<A>(src[y * stride_y + x * stride_x + i]);
        if (beats_one(v, best)) best = v, at = here + y * width + x;
      }
    output[i] = static_cast<T>(best);
    if constexpr (kArgmax) argmax[i] = static_cast<int32_t>(at);
  }
}

template <bool kArgmax, class T>
void pool_channels(const RoiPoolParams& p, const T* input, const int64_t s[4], const double* rois,
                   const BinTable& table, const std::vector<int64_t>& order, T* output, int32_t* argmax,
                   int64_t workers, ParallelFor parallel_for) {
  const int64_t block = even_block(p.channels, 384), blocks = (p.channels + block - 1) / block;
  share(parallel_for, workers, p.rois * blocks, 4 * blocks, [&](ItemQueue& queue) {
    for (int64_t i, end; queue.take(i, end);)
      for (; i < end; ++i) {
        const int64_t k = order[i / blocks], c0 = i % blocks * block, channels = std::min(block, p.channels - c0);
        const bool finite = table.finite(k);
        const AxisBins y = table.rows(k), x = table.columns(k);
        const T* image = input + static_cast<int64_t>(rois[k * 5]) * s[0] + c0;
        const T nothing = static_cast<T>(finite ? 0.0f : std::numeric_limits<float>::quiet_NaN());
        for (int64_t ph = 0; ph < y.count; ++ph)
          for (int64_t pw = 0; pw < x.count; ++pw) {
            const int64_t to = ((k * y.count + ph) * x.count + pw) * p.channels + c0;
            int32_t* at = kArgmax ? argmax + to : nullptr;
            const int64_t rows = y.last[ph] - y.first[ph], columns = x.last[pw] - x.first[pw];
            if (finite && rows > 0 && columns > 0) {
              largest_of<kArgmax>(image + y.first[ph] * s[2] + x.first[pw] * s[3], channels, rows, columns, s[2], s[3],
                                  y.first[ph] * p.width + x.first[pw], p.width, output + to, at);
            } else {
              std::fill_n(output + to, channels, nothing);
              if constexpr (kArgmax) std::fill_n(at, channels, -1);
            }
          }
      }
  });
}
