// Tasks shared between threads, chunk by chunk. Included once per instruction set, after conv_task_cpu_kernel.h.

// What one thread needs to compute parts of tasks. run() calls put(tile, positions, begin, end, sums) for everything in
// chunk `c` and tiles [first, last).
template <class R, class A>
class Worker {
 public:
  Worker(const R* zeros, int64_t put_every) : zeros_(zeros), put_every_(put_every) {}

  template <class Put>
  void run(const Task<R, A>& task, int64_t c, int64_t first, int64_t last, const Put& put) {
    if constexpr (std::is_same_v<R, float>)
      if (task.squares) return run_squares(task, c, first, last, put);
    Chunk<R> chunk(task.product, task.rows, zeros_);
    chunk.at(task.positions() * c / task.chunks, task.positions() * (c + 1) / task.chunks);
    if (task.finite()) chunk.gather(gathered_);
    for (int64_t t = first; t < last; ++t) {
      const Tile<A>& tile = task.tiles[static_cast<size_t>(t)];
      sum_tile(task.product, chunk, task.panels() + t * task.tile_size(), tile.vectors, task.finite(), sums_,
               put_every_, [&](int64_t begin, int64_t end) { put(tile, chunk.positions(), begin, end, sums_); });
    }
  }

 private:
  template <class Put>
  void run_squares(const Task<R, A>& task, int64_t c, int64_t first, int64_t last, const Put& put) {
    Squares squares(task.product);
    squares.at(squares.in_all() * c / task.chunks, squares.in_all() * (c + 1) / task.chunks);
    const int64_t depth = task.product.depth;
    R* gathered = gathered_.at_least(kComponents * kSquares * depth);
    A* products = products_.at_least(kComponents * kSquares * kTileLanes<A>);
    squares.gather(task.rows, zeros_, gathered);
    for (int64_t t = first; t < last; ++t) {
      const Tile<A>& tile = task.tiles[static_cast<size_t>(t)];
      multiply_squares(squares, gathered, task.panels() + t * task.tile_size(), depth, tile.vectors, products);
      for (int64_t begin = 0, end; begin < squares.count(); begin = end) {
        end = std::min(begin + kSquaresPut, squares.count());
        Position positions[kChunk];
        int8_t slots[kSquaresPut][4];
        const int64_t count = squares.positions(begin, end, positions, slots);
        add_up_squares(products, begin, end, slots, tile.vectors, sums_);
        put(tile, positions, 0, count, sums_);
      }
    }
  }

  const R* zeros_;
  const int64_t put_every_;
  Scratch<R> gathered_;
  Scratch<A> products_;
  alignas(64) A sums_[kChunk * kTileLanes<A>];
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
    task.chunks = task.squares ? (Squares(task.product).in_all() + kSquares - 1) / kSquares
                               : (task.positions() + kChunk - 1) / kChunk;
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
    Worker<R, A> worker(zeros.data(), put_every);
    for (int64_t item, end; queue.take(item, end);) {
      auto found = std::upper_bound(tasks.begin(), tasks.end(), item,
                                    [](int64_t i, const Task<R, A>& task) { return i < task.first_item; });
      const Task<R, A>& task = *--found;
      const int64_t parts = task.parts(), c = (item - task.first_item) / parts;
      const int64_t first = (item - task.first_item) % parts * task.tiles_at_a_time;
      const int64_t last = std::min(first + task.tiles_at_a_time, static_cast<int64_t>(task.tiles.size()));
      with_activation(e.activation, [&](auto kind) {
        worker.run(task, c, first, last,
                   [&](const Tile<A>& tile, const Position* all, int64_t from, int64_t until, const A* sums) {
                     (to.planar ? put_rows<kind(), S, A> : put_channels<kind(), S, A>)(tile, all, from, until, sums, to,
                                                                                       e, out);
                   });
      });
    }
  });
}
