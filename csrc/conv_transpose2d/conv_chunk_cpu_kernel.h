// Chunks of positions: their pixels, tile after tile of sums, and the way from there to the output. Included once per
// instruction set, after conv_product_cpu_kernel.h and conv_epilogue_cpu.h.

struct Position {
  int64_t image, y, x;  // y and x in q of conv_axis.h
};

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

// A consecutive part of all positions, and where its pixels are.
template <class R>
class Chunk {
 public:
  Chunk(const Product& p, const R* rows, const R* zeros) : p_(p), rows_(rows), zeros_(zeros) {}

  void at(int64_t begin, int64_t end) {
    count_ = end - begin;
    const int64_t plane = p_.count_y * p_.count_x;
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t image = (begin + i) / plane, rest = (begin + i) % plane;
      positions_[i] = {image, p_.first_y + rest / p_.count_x, p_.first_x + rest % p_.count_x};
    }
  }
  // Copies the pixels of all taps side by side, where that is little: a product of short depths would load and store
  // its sums more often than it adds to them.
  void gather(Scratch<R>& scratch) {
    gathered_ = nullptr;
    const int64_t taps = static_cast<int64_t>(p_.taps.size()), all = taps * p_.depth;
    if (taps < 2 || p_.depth >= kDepthBlock || all > 4 * kDepthBlock) return;
    R* to = scratch.at_least(kChunk * all);
    const R* pixels[kChunk];
    bool inside[kChunk];
    for (int64_t t = 0; t < taps; ++t) {
      this->pixels(p_.taps[static_cast<size_t>(t)], pixels, inside);
      for (int64_t i = 0; i < count_; ++i) std::copy_n(pixels[i], p_.depth, to + i * all + t * p_.depth);
    }
    gathered_ = to;
  }
  const R* gathered() const { return gathered_; }
  int64_t count() const { return count_; }
  const Position& operator[](int64_t i) const { return positions_[i]; }

  // Pointers to the pixels of a tap, zeros for those outside the image, and which those are. False where all are.
  bool pixels(const Tap& tap, const R** found, bool* inside) const {
    bool any = false;
    for (int64_t i = 0; i < count_; ++i) {
      const Position& at = positions_[i];
      const int64_t y = at.y * p_.step_y - tap.y, x = at.x * p_.step_x - tap.x;
      inside[i] = y >= 0 && y < p_.rows_height && x >= 0 && x < p_.rows_width;
      found[i] = inside[i] ? rows_ + at.image * p_.image_stride + (y * p_.rows_width + x) * p_.pixel_stride : zeros_;
      any |= inside[i];
    }
    return any;
  }

 private:
  const Product& p_;
  const R *rows_, *zeros_;  // zeros: a pixel of them
  Position positions_[kChunk];
  int64_t count_ = 0;
  const R* gathered_ = nullptr;  // [position][tap][channel]
};

// Parts of [begin, end) as long as each other and at most kTilePositions: body(first, last).
template <class Body>
inline void in_parts(int64_t begin, int64_t end, const Body& body) {
  const int64_t count = end - begin, parts = (count + kTilePositions - 1) / kTilePositions;
  for (int64_t i = 0; i < parts; ++i) body(begin + count * i / parts, begin + count * (i + 1) / parts);
}

// sums [chunk][kTileLanes] of one tile, whose panel is `vectors` wide; put(begin, end) whenever those of some positions
// are complete.
//
// Where one multiplication completes them, they are put `put_every` positions at a time: so the output is written while
// the next are multiplied, and not in a burst that all wait for (a third of the time of 64 channels).
//
// A weight that is not finite would make a NaN of a zero outside the image: then positions are taken one by one, and
// those outside are left out.
template <class R, class A, class Put>
inline void sum_tile(const Product& p, const Chunk<R>& chunk, const R* panel, int64_t vectors, bool finite, A* sums,
                     int64_t put_every, const Put& put) {
  const int64_t count = chunk.count(), width = vectors * kLanes<A>;
  const R* pixels[kChunk];
  bool inside[kChunk];
  const int64_t block = kDepthBlock * (sizeof(R) < sizeof(A) ? 2 : 1);
  const auto at_once = [&](int64_t depth) {
    for (int64_t begin = 0; begin < count; begin += put_every) {
      const int64_t end = std::min(begin + put_every, count);
      in_parts(begin, end, [&](int64_t first, int64_t last) {
        multiply_tile<true>(vectors, last - first, pixels + first, panel, depth, sums + first * kTileLanes<A>);
      });
      put(begin, end);
    }
  };
  if (chunk.gathered()) {
    const int64_t all = static_cast<int64_t>(p.taps.size()) * p.depth;
    for (int64_t i = 0; i < count; ++i) pixels[i] = chunk.gathered() + i * all;
    return at_once(all);
  }
  if (finite && p.taps.size() == 1 && p.depth <= 2 * block) {
    chunk.pixels(p.taps[0], pixels, inside);
    return at_once(p.depth);
  }
  std::memset(sums, 0, sizeof(A) * static_cast<size_t>(count * kTileLanes<A>));
  for (const Tap& tap : p.taps) {
    const R* b = panel;
    panel += p.depth * width;
    if (!chunk.pixels(tap, pixels, inside)) continue;
    for (int64_t k = 0; k < p.depth; k += block, b += block * width) {
      const int64_t depth = std::min(block, p.depth - k);
      if (finite) {
        in_parts(0, count, [&](int64_t first, int64_t last) {
          if (std::any_of(inside + first, inside + last, [](bool in) { return in; }))
            multiply_tile<false>(vectors, last - first, pixels + first, b, depth, sums + first * kTileLanes<A>);
        });
      } else {
        for (int64_t i = 0; i < count; ++i)
          if (inside[i]) multiply_tile<false>(vectors, 1, pixels + i, b, depth, sums + i * kTileLanes<A>);
      }
      for (int64_t i = 0; i < count; ++i) pixels[i] += block;
    }
  }
  put(0, count);
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

// Positions [begin, end) of a chunk and the runs of one tile, to an output whose channels are next to each other.
template <Activation kKind, class S, class R, class A>
inline void put_channels(const Tile<A>& tile, const Chunk<R>& chunk, int64_t begin, int64_t end, const A* sums,
                         const Destination& to, const Epilogue<S, A>& e, S* out) {
  for (int64_t i = begin; i < end; ++i) {
    const Position& at = chunk[i];
    const int64_t y0 = at.y * to.stride_y - to.padding_y, x0 = at.x * to.stride_x - to.padding_x;
    for (const Run& run : tile.runs) {
      const int64_t y = y0 + run.phase_y, x = x0 + run.phase_x, lane = run.lane - tile.first_lane;
      if (y < 0 || y >= to.height || x < 0 || x >= to.width) continue;
      const int64_t o = ((at.image * to.height + y) * to.width + x) * to.channels + run.channel;
      finish_channels<kKind>(e, sums + i * kTileLanes<A> + lane, tile.scale.data() + lane, tile.offset.data() + lane,
                             run.count, e.residual ? e.residual + o : nullptr, out + o);
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

// Positions [begin, end) of a chunk and the runs of one tile, to an output where rows of a channel are next to each
// other. A run with all phases of a row fills it without gaps.
template <Activation kKind, class S, class R, class A>
inline void put_rows(const Tile<A>& tile, const Chunk<R>& chunk, int64_t begin, int64_t end, const A* sums,
                     const Destination& to, const Epilogue<S, A>& e, S* out) {
  alignas(64) A rows[kChunk * kTileLanes<A>];
  alignas(64) A phase[kChunk];
  alignas(64) S residual[kChunk], finished[kChunk];
  for (int64_t first = begin, last; first < end; first = last) {  // of one row
    const Position& at = chunk[first];
    for (last = first + 1; last < end && chunk[last].y == at.y && chunk[last].image == at.image;) ++last;
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

// A product with what it reads.
template <class R, class A>
struct Task {
  Product product;
  const R* rows;
  std::shared_ptr<const Panels> kept;  // as pack_panels makes them
  std::vector<Tile<A>> tiles;
  int64_t tiles_at_a_time, chunks, first_item;

  const R* panels() const { return reinterpret_cast<const R*>(kept->data.get()); }
  bool finite() const { return kept->finite; }
  int64_t positions() const { return product.batch * product.count_y * product.count_x; }
  int64_t tile_size() const { return static_cast<int64_t>(product.taps.size()) * product.depth * kTileLanes<A>; }
  int64_t parts() const { return (static_cast<int64_t>(tiles.size()) + tiles_at_a_time - 1) / tiles_at_a_time; }
};

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

// All products, chunk by chunk. An item is a chunk and some tiles: all of them, so that its pixels stay in the second
// cache, where there are enough chunks to go round.
template <class S, class R, class A>
void convolve(std::vector<Task<R, A>>& tasks, const Destination& to, const Epilogue<S, A>& e, S* out,
              ParallelFor parallel_for) {
  int64_t items = 0, depth = 1;
  double steps = 0;
  for (Task<R, A>& task : tasks) {
    const int64_t tiles = static_cast<int64_t>(task.tiles.size());
    task.chunks = (task.positions() + kChunk - 1) / kChunk;
    task.tiles_at_a_time = task.chunks >= 64 ? tiles : std::min<int64_t>(tiles, 8);
    task.first_item = items;
    items += task.chunks * task.parts();
    depth = std::max(depth, task.product.depth);
    if (!to.planar)
      for (Tile<A>& tile : task.tiles) scale_lanes(e, to.channels, tile);
    steps += static_cast<double>(task.positions()) * static_cast<double>(tiles * kTileVectors) *
             (4 + static_cast<double>(task.product.taps.size()) * static_cast<double>(task.product.depth) / 2);
  }
  const std::vector<R> zeros(static_cast<size_t>(depth));
  // Rows are put in pieces of 96 pixels or more.
  const int64_t put_every =
      to.planar ? kTilePositions * std::min(16 / to.stride_x + 1, kChunk / kTilePositions) : kTilePositions;
  share(parallel_for, workers_for(steps), items, 1, [&](ItemQueue& queue) {
    alignas(64) A sums[kChunk * kTileLanes<A>];
    Scratch<R> gathered;
    for (int64_t item, end; queue.take(item, end);) {
      auto found = std::upper_bound(tasks.begin(), tasks.end(), item,
                                    [](int64_t i, const Task<R, A>& task) { return i < task.first_item; });
      const Task<R, A>& task = *--found;
      const int64_t parts = task.parts(), c = (item - task.first_item) / parts;
      const int64_t first = (item - task.first_item) % parts * task.tiles_at_a_time;
      const int64_t last = std::min(first + task.tiles_at_a_time, static_cast<int64_t>(task.tiles.size()));
      Chunk<R> chunk(task.product, task.rows, zeros.data());
      chunk.at(task.positions() * c / task.chunks, task.positions() * (c + 1) / task.chunks);
      if (task.finite()) chunk.gather(gathered);
      for (int64_t t = first; t < last; ++t) {
        const Tile<A>& tile = task.tiles[static_cast<size_t>(t)];
        with_activation(e.activation, [&](auto kind) {
          sum_tile(task.product, chunk, task.panels() + t * task.tile_size(), tile.vectors, task.finite(), sums,
                   put_every, [&](int64_t from, int64_t until) {
                     (to.planar ? put_rows<kind(), S, R, A> : put_channels<kind(), S, R, A>)(tile, chunk, from, until,
                                                                                             sums, to, e, out);
                   });
        });
      }
    }
  });
}
