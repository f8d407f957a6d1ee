// Forward, planes apart: vectors over columns. For each row of bins, first the maximum of every column over its rows;
// then lane p takes the columns of bin p one after the other by a permutation. For 7 x 7 bins over 13 x 13 pixels that
// is some 7 x (3 loads + 3 permutations) vectors a plane; copying the pixels with channels side by side would cost 60
// shuffles a plane before the first maximum.

// One RoI on planes. Row by row of bins into a tile [PH, PW] of values, and one of indices.
template <bool kArgmax, class T>
class PlaneWorker {
  using A = acc_t<T>;
  static constexpr int64_t kVectors = 2;  // columns that permutations reach: all that most RoIs have

 public:
  PlaneWorker(const RoiPoolParams& p, int64_t stride_y) : p_(p), stride_y_(stride_y) {}

  void select_roi(const AxisBins& y, const AxisBins& x) {
    y_ = y, x_ = x;
    longest_ = x.longest();
    const int64_t wide = x.end() - x.begin();
    vectors_ = (wide + kLanes<A> - 1) / kLanes<A>;
    // Moved to the left where the vectors would end outside the row.
    base_ = std::min(x.begin(), std::max<int64_t>(p_.width - vectors_ * kLanes<A>, 0));
  }

  // Asks for the RoI's pixels of a plane that is soon to be pooled: short pieces of rows, whose order no hardware
  // guesses, so that without this the loads of new lines are most of the time.
  void prefetch(const T* plane, const AxisBins& rows, const AxisBins& columns) const {
    constexpr int64_t line = 64 / sizeof(T);
    const int64_t begin = columns.begin(), end = columns.end();
    for (int64_t y = rows.begin(); begin < end && y < rows.end(); ++y) {
      const T* row = plane + y * stride_y_;
      for (int64_t x = begin; x < end; x += line) __builtin_prefetch(row + x);
      __builtin_prefetch(row + end - 1);
    }
  }

  // tile [PH * PW + kLanes], tile_at likewise.
  void pool(const T* plane, T* tile, int32_t* tile_at) {
    for (int64_t ph = 0; ph < y_.count; ++ph, tile += x_.count, tile_at += x_.count) {
      const int64_t top = y_.first[ph], bottom = y_.last[ph];
      if (bottom <= top || longest_ <= 0) {
        std::fill_n(tile, x_.count, static_cast<T>(0.0f));
        if constexpr (kArgmax) std::fill_n(tile_at, x_.count, -1);
      } else if (vectors_ <= kVectors) {
        by_permutation(plane, top, bottom, tile, tile_at);
      } else {
        one_by_one(plane, top, bottom, tile, tile_at);
      }
    }
  }

 private:
  // The maximum of each column of rows [top, bottom), from column x on. at: indices, less the column's own number.
  void down_columns(const T* plane, int64_t top, int64_t bottom, int64_t x, Vec<A>& best, Indices<A>& at) const {
    const int64_t there = p_.width - x;
    const T* from = plane + top * stride_y_ + x;
    best = there >= kLanes<A> ? load(from) : load_part(from, std::max<int64_t>(there, 0));
    at = broadcast_index<A>(top * p_.width);
    for (int64_t y = top + 1; y < bottom; ++y) {
      from += stride_y_;
      const Vec<A> v = there >= kLanes<A> ? load(from) : load_part(from, std::max<int64_t>(there, 0));
      const auto more = beats(v, best);
      best = select(more, v, best);
      if constexpr (kArgmax) at = select(more, broadcast_index<A>(y * p_.width), at);
    }
  }
  static Indices<A> lane_numbers() {
    Indices<A> v;
    for (int64_t i = 0; i < kLanes<A>; ++i) v[i] = static_cast<typename IndicesOf<A>::lane>(i);
    return v;
  }

  void by_permutation(const T* plane, int64_t top, int64_t bottom, T* tile, int32_t* tile_at) const {
    Vec<A> column[2];
    Indices<A> column_at[2];
    down_columns(plane, top, bottom, base_, column[0], column_at[0]);
    column[1] = column[0], column_at[1] = column_at[0];
    if (vectors_ == 2) down_columns(plane, top, bottom, base_ + kLanes<A>, column[1], column_at[1]);
    if constexpr (kArgmax) {
      column_at[0] += lane_numbers() + broadcast_index<A>(base_);
      column_at[1] += lane_numbers() + broadcast_index<A>(base_ + kLanes<A>);
    }
    const Indices<A> base = broadcast_index<A>(base_);
    for (int64_t pw = 0; pw < x_.count; pw += kLanes<A>) {
      const Indices<A> first = load_indices<A>(x_.first + pw) - base, last = load_indices<A>(x_.last + pw) - base - 1;
      Vec<A> best = __builtin_shuffle(column[0], column[1], first);
      Indices<A> at = __builtin_shuffle(column_at[0], column_at[1], first);
      for (int64_t j = 1; j < longest_; ++j) {
        const Indices<A> next = first + static_cast<typename IndicesOf<A>::lane>(j);
        const Indices<A> from = next < last ? next : last;
        const Vec<A> v = __builtin_shuffle(column[0], column[1], from);
        if constexpr (kArgmax) {
          const Indices<A> here = __builtin_shuffle(column_at[0], column_at[1], from);
          const auto more = beats(v, here, best, at);
          at = select(more, here, at);
          best = select(more, v, best);
        } else {
          best = select(beats(v, best), v, best);
        }
      }
      const auto empty = last < first;
      best = empty ? Vec<A>{} : best;
      store(tile + pw, best);
      if constexpr (kArgmax) store_indices(tile_at + pw, empty ? broadcast_index<A>(-1) : at);
    }
  }

  // RoIs wider than two vectors.
  void one_by_one(const T* plane, int64_t top, int64_t bottom, T* tile, int32_t* tile_at) {
    const int64_t begin = x_.begin(), end = x_.end(), last = p_.width - kLanes<A>;
    A* column = columns_.at_least(p_.width);
    int32_t* column_at = columns_at_.at_least(p_.width);
    for (int64_t x = begin; x < end; x += kLanes<A>) {
      const int64_t from = std::min(x, last);
      Vec<A> best;
      Indices<A> at;
      down_columns(plane, top, bottom, from, best, at);
      store(column + from, best);
      if constexpr (kArgmax) store_indices(column_at + from, at + lane_numbers() + broadcast_index<A>(from));
    }
    for (int64_t pw = 0; pw < x_.count; ++pw) {
      if (x_.last[pw] <= x_.first[pw]) {
        tile[pw] = static_cast<T>(0.0f);
        if constexpr (kArgmax) tile_at[pw] = -1;
        continue;
      }
      A best = column[x_.first[pw]];
      int32_t at = kArgmax ? column_at[x_.first[pw]] : 0;
      for (int64_t x = x_.first[pw] + 1; x < x_.last[pw]; ++x) {
        const A v = column[x];
        bool more = beats_one(v, best);
        if constexpr (kArgmax) {
          more |= (v == best || (v != v && best != best)) && column_at[x] < at;
          if (more) at = column_at[x];
        }
        if (more) best = v;
      }
      tile[pw] = static_cast<T>(best);
      if constexpr (kArgmax) tile_at[pw] = at;
    }
  }

  const RoiPoolParams& p_;
  const int64_t stride_y_;
  AxisBins y_{}, x_{};
  int64_t longest_ = 0, vectors_ = 0, base_ = 0;
  Scratch<A> columns_;
  Scratch<int32_t> columns_at_;
};

template <bool kArgmax, class T>
void pool_planes(const RoiPoolParams& p, const T* input, const int64_t s[4], const double* rois, const BinTable& table,
                 const std::vector<int64_t>& order, T* output, int32_t* argmax, int64_t workers,
                 ParallelFor parallel_for) {
  // Some planes at a time, all RoIs over them: by place, so that of each plane a band of rows is in the L2 cache, and
  // of the output whole lines are written.
  constexpr int64_t kAhead = 2;
  const int64_t block = even_block(p.channels, 8), blocks = (p.channels + block - 1) / block;
  const std::vector<RoiRun> runs = runs_of(order, rois, 256);
  const int64_t count = static_cast<int64_t>(runs.size()), bins = p.pooled_height * p.pooled_width;
  share(parallel_for, workers, count * blocks, 1, [&](ItemQueue& queue) {
    PlaneWorker<kArgmax, T> worker(p, s[2]);
    Scratch<T> tiles;
    Scratch<int32_t> tiles_at;
    const int64_t room = block * bins + kLanes<acc_t<T>>;
    T* tile = tiles.at_least(room);
    int32_t* tile_at = kArgmax ? tiles_at.at_least(room) : nullptr;
    for (int64_t i, end; queue.take(i, end);)
      for (; i < end; ++i) {
        const RoiRun& run = runs[i % count];
        const int64_t c0 = i / count * block, channels = std::min(block, p.channels - c0);
        const T* planes = input + run.image * s[0] + c0 * s[1];
        for (int64_t n = run.begin; n < run.end; ++n) {
          const int64_t k = order[n], to = (k * p.channels + c0) * bins;
          if (!table.finite(k)) {
            std::fill_n(output + to, channels * bins, static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
            if constexpr (kArgmax) std::fill_n(argmax + to, channels * bins, -1);
            continue;
          }
          worker.select_roi(table.rows(k), table.columns(k));
          const int64_t next = order[std::min(n + 1, run.end - 1)];
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t ahead = c + kAhead, soon = ahead < channels ? k : next;
            worker.prefetch(planes + ahead % channels * s[1], table.rows(soon), table.columns(soon));
            worker.pool(planes + c * s[1], tile + c * bins, kArgmax ? tile_at + c * bins : nullptr);
          }
          std::memcpy(static_cast<void*>(output + to), tile, static_cast<size_t>(channels * bins) * sizeof(T));
          if constexpr (kArgmax)
            std::memcpy(argmax + to, tile_at, static_cast<size_t>(channels * bins) * sizeof(int32_t));
        }
      }
  });
}
