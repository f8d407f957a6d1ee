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

// sums [chunk][kTileLanes] of one tile, whose panel is `vectors` wide.
//
// A weight that is not finite would make a NaN of a zero outside the image: then positions are taken one by one, and
// those outside are left out.
template <class R, class A>
inline void sum_tile(const Product& p, const Chunk<R>& chunk, const R* panel, int64_t vectors, bool finite, A* sums) {
  const int64_t count = chunk.count(), width = vectors * kLanes<A>;
  std::memset(sums, 0, sizeof(A) * static_cast<size_t>(count * kTileLanes<A>));
  const R* pixels[kChunk];
  bool inside[kChunk];
  const int64_t block = kDepthBlock * (sizeof(R) < sizeof(A) ? 2 : 1);
  const int64_t parts = (count + kTilePositions - 1) / kTilePositions;
  const auto add = [&](const bool* used, const R* b, int64_t depth) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begin = count * part / parts, end = count * (part + 1) / parts;
      if (used == nullptr || std::any_of(used + begin, used + end, [](bool in) { return in; }))
        multiply_tile(vectors, end - begin, pixels + begin, b, depth, sums + begin * kTileLanes<A>);
    }
  };
  if (chunk.gathered()) {
    const int64_t all = static_cast<int64_t>(p.taps.size()) * p.depth;
    for (int64_t i = 0; i < count; ++i) pixels[i] = chunk.gathered() + i * all;
    return add(nullptr, panel, all);
  }
  for (const Tap& tap : p.taps) {
    const R* b = panel;
    panel += p.depth * width;
    if (!chunk.pixels(tap, pixels, inside)) continue;
    for (int64_t k = 0; k < p.depth; k += block, b += block * width) {
      const int64_t depth = std::min(block, p.depth - k);
      if (finite) {
        add(inside, b, depth);
      } else {
        for (int64_t i = 0; i < count; ++i)
          if (inside[i]) multiply_tile(vectors, 1, pixels + i, b, depth, sums + i * kTileLanes<A>);
      }
      for (int64_t i = 0; i < count; ++i) pixels[i] += block;
    }
  }
}

// The runs of one tile, to an output whose channels are next to each other.
template <Activation kKind, class S, class R, class A>
inline void put_channels(const std::vector<Run>& runs, int64_t first_lane, const Chunk<R>& chunk, const A* sums,
                         const Destination& to, const Epilogue<S, A>& e, S* out) {
  for (int64_t i = 0; i < chunk.count(); ++i) {
    const Position& at = chunk[i];
    for (const Run& run : runs) {
      const int64_t y = at.y * to.stride_y + run.phase_y - to.padding_y;
      const int64_t x = at.x * to.stride_x + run.phase_x - to.padding_x;
      if (y < 0 || y >= to.height || x < 0 || x >= to.width) continue;
      const int64_t o = ((at.image * to.height + y) * to.width + x) * to.channels + run.channel;
      finish_channels<kKind>(e, sums + i * kTileLanes<A> + run.lane - first_lane, run.channel, run.count,
                             e.residual ? e.residual + o : nullptr, out + o);
    }
  }
}

// The same where rows of a channel are next to each other. A run with all phases of a row fills it without gaps.
template <Activation kKind, class S, class R, class A>
inline void put_rows(const std::vector<Run>& runs, int64_t first_lane, const Chunk<R>& chunk, const A* sums,
                     const Destination& to, const Epilogue<S, A>& e, S* out) {
  alignas(64) A row[kChunk * kTileLanes<A>];
  alignas(64) S residual[kChunk], finished[kChunk];
  for (int64_t begin = 0, end; begin < chunk.count(); begin = end) {
    const Position& at = chunk[begin];
    for (end = begin + 1; end < chunk.count() && chunk[end].y == at.y && chunk[end].image == at.image;) ++end;
    for (const Run& run : runs) {
      const int64_t y = at.y * to.stride_y + run.phase_y - to.padding_y;
      if (y < 0 || y >= to.height) continue;
      const A* from = sums + begin * kTileLanes<A> + run.lane - first_lane;
      const int64_t o = ((at.image * to.channels + run.channel) * to.height + y) * to.width;
      const int64_t x0 = at.x * to.stride_x + run.phase_x - to.padding_x;
      if (run.count == to.stride_x) {
        for (int64_t i = 0; i < end - begin; ++i) copy_run(from + i * kTileLanes<A>, run.count, row + i * run.count);
        const int64_t first = std::max<int64_t>(0, -x0), last = std::min((end - begin) * run.count, to.width - x0);
        if (first < last)
          finish_row<kKind>(e, row + first, run.channel, last - first,
                            e.residual ? e.residual + o + x0 + first : nullptr, out + o + x0 + first);
        continue;
      }
      for (int64_t j = 0; j < run.count; ++j) {
        int64_t first = 0, last = end - begin;
        while (first < last && x0 + j + first * to.stride_x < 0) ++first;
        while (first < last && x0 + j + (last - 1) * to.stride_x >= to.width) --last;
        for (int64_t i = first; i < last; ++i) {
          row[i] = from[i * kTileLanes<A> + j];
          if (e.residual) residual[i] = e.residual[o + x0 + j + i * to.stride_x];
        }
        finish_row<kKind>(e, row + first, run.channel, last - first, e.residual ? residual + first : nullptr,
                          finished + first);
        for (int64_t i = first; i < last; ++i) out[o + x0 + j + i * to.stride_x] = finished[i];
      }
    }
  }
}

// Lanes of a tile, and the runs in it, cut at its edges.
struct Tile {
  int64_t first_lane, vectors;
  std::vector<Run> runs;
};

template <class A>
inline std::vector<Tile> tiles_of(const Product& p) {
  const int64_t width = tile_width(p, kTileLanes<A>);
  std::vector<Tile> tiles;
  for (int64_t first = 0; first < p.lanes; first += width) {
    const int64_t last = std::min(first + width, p.lanes);
    tiles.push_back({first, (last - first + kLanes<A> - 1) / kLanes<A>, {}});
  }
  for (Run run : p.runs)
    while (run.count > 0) {
      Tile& tile = tiles[static_cast<size_t>(run.lane / width)];
      Run part = run;
      part.count = std::min(run.count, tile.first_lane + width - run.lane);
      tile.runs.push_back(part);
      run.lane += part.count;
      run.count -= part.count;
      (p.planar_runs ? run.phase_x : run.channel) += part.count;
    }
  return tiles;
}

// A product with what it reads.
template <class R, class A>
struct Task {
  Product product;
  const R* rows;
  std::shared_ptr<const Panels> kept;  // as pack_panels makes them
  std::vector<Tile> tiles;
  int64_t tiles_at_a_time, chunks, first_item;

  const R* panels() const { return reinterpret_cast<const R*>(kept->data.get()); }
  bool finite() const { return kept->finite; }
  int64_t positions() const { return product.batch * product.count_y * product.count_x; }
  int64_t tile_size() const { return static_cast<int64_t>(product.taps.size()) * product.depth * kTileLanes<A>; }
  int64_t parts() const { return (static_cast<int64_t>(tiles.size()) + tiles_at_a_time - 1) / tiles_at_a_time; }
};

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
    steps += static_cast<double>(task.positions()) * static_cast<double>(tiles * kTileVectors) *
             (4 + static_cast<double>(task.product.taps.size()) * static_cast<double>(task.product.depth) / 2);
  }
  const std::vector<R> zeros(static_cast<size_t>(depth));
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
        const Tile& tile = task.tiles[static_cast<size_t>(t)];
        sum_tile(task.product, chunk, task.panels() + t * task.tile_size(), tile.vectors, task.finite(), sums);
        with_activation(e.activation, [&](auto kind) {
          (to.planar ? put_rows<kind(), S, R, A> : put_channels<kind(), S, R, A>)(tile.runs, tile.first_lane, chunk,
                                                                                  sums, to, e, out);
        });
      }
    }
  });
}
