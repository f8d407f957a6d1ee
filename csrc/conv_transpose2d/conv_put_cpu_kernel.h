// The way from sums to the output. Included once per instruction set, after conv_chunk_cpu_kernel.h,
// conv_epilogue_cpu.h and common/cpu/transpose.h.

// Phases of one output row, side by side: mostly two.
template <class A>
inline void copy_run(const A* from, int64_t count, A* to) {
  switch (count) {
    case 2:
      return static_cast<void>(std::memcpy(to, from, 2 * sizeof(A)));
    case 4:
      return static_cast<void>(std::memcpy(to, from, 4 * sizeof(A)));
    case 8:
      return static_cast<void>(std::memcpy(to, from, 8 * sizeof(A)));
    default:
      std::memcpy(to, from, sizeof(A) * static_cast<size_t>(count));
  }
}

// Lanes of a tile, the runs in it, cut at its edges, and what its lanes are scaled and shifted by.
template <class A>
struct Tile {
  int64_t first_lane, vectors;
  std::vector<Run> runs;
  int64_t run_length;  // 0 where they differ
  std::vector<A> scale, offset;
};

template <class A>
inline std::vector<Tile<A>> tiles_of(const Product& p) {
  const int64_t width = tile_width(p, kTileLanes<A>);
  std::vector<Tile<A>> tiles;
  for (int64_t first = 0; first < p.lanes; first += width) {
    const int64_t last = std::min(first + width, p.lanes);
    tiles.push_back({first, (last - first + kLanes<A> - 1) / kLanes<A>, {}, 0, {}, {}});
  }
  for (Run run : p.runs)
    while (run.count > 0) {
      Tile<A>& tile = tiles[static_cast<size_t>(run.lane / width)];
      Run part = run;
      part.count = std::min(run.count, tile.first_lane + width - run.lane);
      tile.runs.push_back(part);
      run.lane += part.count;
      run.count -= part.count;
      (p.planar_runs ? run.phase_x : run.channel) += part.count;
    }
  for (Tile<A>& tile : tiles) {
    const int64_t length = tile.runs[0].count;
    if (std::all_of(tile.runs.begin(), tile.runs.end(), [&](const Run& run) { return run.count == length; }))
      tile.run_length = length;
  }
  return tiles;
}

template <class S, class A>
inline void scale_lanes(const Epilogue<S, A>& e, int64_t channels, Tile<A>& tile) {
  tile.scale.assign(kTileLanes<A> + kLanes<A>, A(1));
  tile.offset.assign(kTileLanes<A> + kLanes<A>, A(0));
  for (const Run& run : tile.runs)
    for (int64_t i = 0; i < run.count; ++i) {
      const size_t lane = static_cast<size_t>(run.lane - tile.first_lane + i);
      const int64_t channel = (run.channel + i) % channels;
      if (e.scale) tile.scale[lane] = e.scale[channel];
      if (e.offset) tile.offset[lane] = e.offset[channel];
    }
}

// Positions [begin, end) and the runs of one tile, to an output whose channels are next to each other.
template <Activation kKind, class S, class A>
inline void put_channels(const Tile<A>& tile, const Position* all, int64_t begin, int64_t end, const A* sums,
                         const Destination& to, const Epilogue<S, A>& e, S* out) {
  for (int64_t i = begin; i < end; ++i) {
    const Position& at = all[i];
    const int64_t y0 = at.y * to.stride_y - to.padding_y, x0 = at.x * to.stride_x - to.padding_x;
    for (const Run& run : tile.runs) {
      const int64_t y = y0 + run.phase_y, x = x0 + run.phase_x;
      if (y < 0 || y >= to.height) continue;
      // Channels of x and of the pixels that follow, some of which may lie outside.
      const int64_t from = std::max(run.channel, -x * to.channels);
      const int64_t until = std::min(run.channel + run.count, (to.width - x) * to.channels);
      if (from >= until) continue;
      const int64_t lane = run.lane - tile.first_lane + from - run.channel;
      const int64_t o = ((at.image * to.height + y) * to.width + x) * to.channels + from;
      finish_channels<kKind>(e, sums + i * kTileLanes<A> + lane, tile.scale.data() + lane, tile.offset.data() + lane,
                             until - from, e.residual ? e.residual + o : nullptr, out + o);
    }
  }
}

// rows[lane of the run's first][position][lane within the run], kChunk positions apart: the pixels of a run side by
// side. One phase or two (the stride of most networks) are transposed as numbers of their size; longer runs are copied.
template <class A>
inline void gather_runs(const Tile<A>& tile, const A* sums, int64_t positions, A* rows) {
  const int64_t lanes = static_cast<int64_t>(tile.runs.size());
  if (tile.run_length == 1) return transpose(sums, kTileLanes<A>, positions, lanes, rows, kChunk);
  if constexpr (std::is_same_v<A, float>)
    if (tile.run_length == 2)
      return transpose(reinterpret_cast<const double*>(sums), kTileLanes<A> / 2, positions, lanes,
                       reinterpret_cast<double*>(rows), kChunk);
  for (const Run& run : tile.runs) {
    const int64_t lane = run.lane - tile.first_lane;
    for (int64_t i = 0; i < positions; ++i)
      copy_run(sums + i * kTileLanes<A> + lane, run.count, rows + lane * kChunk + i * run.count);
  }
}

// Positions [begin, end) and the runs of one tile, to an output where rows of a channel are next to each
// other. A run with all phases of a row fills it without gaps.
template <Activation kKind, class S, class A>
inline void put_rows(const Tile<A>& tile, const Position* all, int64_t begin, int64_t end, const A* sums,
                     const Destination& to, const Epilogue<S, A>& e, S* out) {
  alignas(64) A rows[kChunk * kTileLanes<A>];
  alignas(64) A phase[kChunk];
  alignas(64) S residual[kChunk], finished[kChunk];
  for (int64_t first = begin, last; first < end; first = last) {  // of one row
    const Position& at = all[first];
    for (last = first + 1; last < end && all[last].y == at.y && all[last].image == at.image;) ++last;
    const int64_t positions = last - first;
    gather_runs(tile, sums + first * kTileLanes<A>, positions, rows);
    for (const Run& run : tile.runs) {
      const int64_t y = at.y * to.stride_y + run.phase_y - to.padding_y;
      if (y < 0 || y >= to.height) continue;
      const A* row = rows + (run.lane - tile.first_lane) * kChunk;
      const int64_t o = ((at.image * to.channels + run.channel) * to.height + y) * to.width;
      const int64_t x0 = at.x * to.stride_x + run.phase_x - to.padding_x;
      if (run.count == to.stride_x) {
        const int64_t from = std::max<int64_t>(0, -x0), until = std::min(positions * run.count, to.width - x0);
        if (from < until)
          finish_row<kKind>(e, row + from, run.channel, until - from, e.residual ? e.residual + o + x0 + from : nullptr,
                            out + o + x0 + from);
        continue;
      }
      for (int64_t j = 0; j < run.count; ++j) {
        int64_t from = 0, until = positions;
        while (from < until && x0 + j + from * to.stride_x < 0) ++from;
        while (from < until && x0 + j + (until - 1) * to.stride_x >= to.width) --until;
        for (int64_t i = from; i < until; ++i) {
          phase[i] = row[i * run.count + j];
          if (e.residual) residual[i] = e.residual[o + x0 + j + i * to.stride_x];
        }
        finish_row<kKind>(e, phase + from, run.channel, until - from, e.residual ? residual + from : nullptr,
                          finished + from);
        for (int64_t i = from; i < until; ++i) out[o + x0 + j + i * to.stride_x] = finished[i];
      }
    }
  }
}
