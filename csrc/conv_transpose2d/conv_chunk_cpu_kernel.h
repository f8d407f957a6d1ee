// Chunks of positions: their pixels, tile after tile of sums, and the way from there to the output. Included once per
// instruction set, after conv_product_cpu_kernel.h and conv_epilogue_cpu.h.

struct Position {
  int64_t image, y, x;  // y and x in q of conv_axis.h
};

// Phases of one output row, side by side: mostly two.
template <class A>
inline void copy_run(const A* from, int64_t count, A* to) {
  switch (count) {
    case 2: return static_cast<void>(std::memcpy(to, from, 2 * sizeof(A)));
    case 4: return static_cast<void>(std::memcpy(to, from, 4 * sizeof(A)));
    case 8: return static_cast<void>(std::memcpy(to, from, 8 * sizeof(A)));
    default: std::memcpy(to, from, sizeof(A) * static_cast<size_t>(count));
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
  for (const Tap& tap : p.taps) {
    const R* b = panel;
    panel += p.depth * width;
    if (!chunk.pixels(tap, pixels, inside)) continue;
    for (int64_t k = 0; k < p.depth; k += block, b += block * width) {
      const int64_t depth = std::min(block, p.depth - k);
      if (finite) {
        for (int64_t part = 0; part < parts; ++part) {
          const int64_t begin = count * part / parts, end = count * (part + 1) / parts;
          multiply_tile(vectors, end - begin, pixels + begin, b, depth, sums + begin * kTileLanes<A>);
        }
      } else {
        for (int64_t i = 0; i < count; ++i)
          if (inside[i]) multiply_tile(vectors, 1, pixels + i, b, depth, sums + i * kTileLanes<A>);
      }
      for (int64_t i = 0; i < count; ++i) pixels[i] += block;
    }
  }
}

// The runs of one tile, to an output whose channels are next to each other.
template <class S, class R, class A>
inline void put_channels(const std::vector<Run>& runs, int64_t first_lane, const Chunk<R>& chunk, const A* sums,
                         const Destination& to, const Epilogue<S, A>& e, S* out) {
  for (int64_t i = 0; i < chunk.count(); ++i) {
    const Position& at = chunk[i];
    for (const Run& run : runs) {
      const int64_t y = at.y * to.stride_y + run.phase_y - to.padding_y;
      const int64_t x = at.x * to.stride_x + run.phase_x - to.padding_x;
      if (y < 0 || y >= to.height || x < 0 || x >= to.width) continue;
      const int64_t o = ((at.image * to.height + y) * to.width + x) * to.channels + run.channel;
      finish_channels(e, sums + i * kTileLanes<A> + run.lane - first_lane, run.channel, run.count,
                      e.residual ? e.residual + o : nullptr, out + o);
    }
  }
}

// The same where rows of a channel are next to each other. A run with all phases of a row fills it without gaps.
template <class S, class R, class A>
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
        for (int64_t i = 0; i < end - begin; ++i)
          copy_run(from + i * kTileLanes<A>, run.count, row + i * run.count);
        const int64_t first = std::max<int64_t>(0, -x0), last = std::min((end - begin) * run.count, to.width - x0);
        if (first < last)
          finish_row(e, row + first, run.channel, last - first, e.residual ? e.residual + o + x0 + first : nullptr,
                     out + o + x0 + first);
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
        finish_row(e, row + first, run.channel, last - first, e.residual ? residual + first : nullptr, finished + first);
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

// The whole product. panels: as pack_panels makes them; zeros: p.depth of them.
template <class S, class R, class A>
void convolve(const Product& p, const R* rows, const R* zeros, const R* panels, bool finite, const Destination& to,
              const Epilogue<S, A>& e, S* out, ParallelFor parallel_for) {
  const std::vector<Tile> tiles = tiles_of<A>(p);
  const int64_t positions = p.batch * p.count_y * p.count_x, chunks = (positions + kChunk - 1) / kChunk;
  const int64_t tile_size = static_cast<int64_t>(p.taps.size()) * p.depth * kTileLanes<A>;
  // A share is a chunk and some tiles: all of them, so that its pixels stay in the second cache, where there are enough
  // chunks to go round.
  const int64_t tile_count = static_cast<int64_t>(tiles.size());
  const int64_t at_a_time = chunks >= 64 ? tile_count : std::min<int64_t>(tile_count, 8);
  const int64_t parts = (tile_count + at_a_time - 1) / at_a_time;
  const double steps = static_cast<double>(positions) * tile_count * kTileVectors *
                       (4.0 + static_cast<double>(p.taps.size()) * p.depth / 2);
  share(parallel_for, workers_for(steps), chunks * parts, 1, [&](ItemQueue& queue) {
    Chunk<R> chunk(p, rows, zeros);
    alignas(64) A sums[kChunk * kTileLanes<A>];
    for (int64_t item, end; queue.take(item, end);) {
      const int64_t c = item / parts, first = item % parts * at_a_time;
      chunk.at(positions * c / chunks, positions * (c + 1) / chunks);
      for (int64_t t = first; t < std::min(first + at_a_time, tile_count); ++t) {
        const Tile& tile = tiles[static_cast<size_t>(t)];
        sum_tile(p, chunk, panels + t * tile_size, tile.vectors, finite, sums);
        (to.planar ? put_rows<S, R, A> : put_channels<S, R, A>)(tile.runs, tile.first_lane, chunk, sums, to, e, out);
      }
    }
  });
}
