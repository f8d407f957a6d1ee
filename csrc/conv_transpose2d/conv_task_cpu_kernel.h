// Products made ready: what every op on the engine of transposed convolutions includes, once per instruction set.
// clang-format off: in this order
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"
#include "common/cpu/vector_math.h"
#include "conv_transpose2d/conv_epilogue_cpu.h"
#include "conv_transpose2d/conv_product_cpu_kernel.h"
#include "conv_transpose2d/conv_chunk_cpu_kernel.h"
#include "conv_transpose2d/conv_put_cpu_kernel.h"
#include "conv_transpose2d/conv_squares_cpu_kernel.h"
#include "conv_transpose2d/conv_rows_cpu_kernel.h"
// clang-format on

// A product with what it reads.
template <class R, class A>
struct Task {
  Product product;
  const R* rows;
  std::shared_ptr<const Panels> kept;  // as pack_panels makes them
  std::vector<Tile<A>> tiles;
  bool squares;  // its taps are combined (conv_squares_cpu_kernel.h)
  int64_t tiles_at_a_time, chunks, first_item;

  const R* panels() const { return reinterpret_cast<const R*>(kept->data.get()); }
  bool finite() const { return kept->finite; }
  int64_t positions() const { return product.batch * product.count_y * product.count_x; }
  int64_t factors() const { return squares ? kComponents : static_cast<int64_t>(product.taps.size()); }
  int64_t tile_size() const { return factors() * product.depth * kTileLanes<A>; }
  int64_t parts() const { return (static_cast<int64_t>(tiles.size()) + tiles_at_a_time - 1) / tiles_at_a_time; }
};

// The maps that a product reads: in place where pixels have their channels side by side in the type R, else a copy.
// Where a group has one channel, its plane is such a map too.
template <class S, class R>
struct Rows {
  const R* data;
  int64_t image_stride, pixel_stride, group_stride;
};

template <class S, class R>
inline Rows<S, R> rows_of(const S* map, bool planar, int64_t images, int64_t channels, int64_t groups, int64_t pixels,
                          Scratch<R>& scratch, ParallelFor parallel_for) {
  if constexpr (std::is_same_v<S, R>) {
    if (planar && channels == groups) return {map, channels * pixels, 1, pixels};
    if (!planar) return {map, channels * pixels, channels, channels / groups};
  }
  R* copy = scratch.at_least(std::max<int64_t>(1, images * channels * pixels));
  gather_rows(map, planar, images, channels, pixels, copy, parallel_for);
  return {copy, channels * pixels, channels, channels / groups};
}

// Where a call's panels come from. `size`: numbers from the first weight to the last.
template <class S>
inline PanelKeeper keeper_of(const S* weight, int64_t size, int64_t pixels, ParallelFor parallel_for) {
  const int64_t bytes = size * static_cast<int64_t>(sizeof(S));
  PanelKeeper keeper(weight, bytes, pixels);
  if (keeper.repeats()) keeper.identify(fingerprint(weight, bytes, parallel_for));
  return keeper;
}

// A product made ready: its weights packed, `group` of the channels' pixels found. With `squares` its taps are combined
// where it has such taps; then all pixels must be tame.
template <class S, class R>
inline Task<R, acc_t<S>> prepare(Product product, const Rows<S, R>& rows, int64_t group, const S* weight, bool squares,
                                 const PanelKeeper& keeper, ParallelFor parallel_for) {
  using A = acc_t<S>;
  product.image_stride = rows.image_stride;
  product.pixel_stride = rows.pixel_stride;
  squares = squares && in_squares(product);
  Task<R, A> task{std::move(product), rows.data + group * rows.group_stride, nullptr, {}, squares, 0, 0, 0};
  task.tiles = tiles_of<A>(task.product);
  const auto order = [&] { return PanelOrder(task.product, task.squares, typeid(S), typeid(R)); };
  task.kept = keeper.find(order());
  if (task.kept != nullptr) return task;

  const int64_t tiles = static_cast<int64_t>(task.tiles.size());
  const auto pack = [&](Scratch<std::byte>& to, int64_t factors) {
    const int64_t count = tiles * factors * task.product.depth * kTileLanes<A>;
    return reinterpret_cast<R*>(to.at_least(std::max<int64_t>(1, count * static_cast<int64_t>(sizeof(R)))));
  };
  const int64_t taps = static_cast<int64_t>(task.product.taps.size());
  auto made = std::make_shared<Panels>();
  R* packed = pack(made->data, taps);
  made->finite = pack_panels<S, R, A>(task.product, weight, packed, parallel_for);
  if constexpr (std::is_same_v<R, float>)
    if (squares) {
      auto combined = std::make_shared<Panels>();
      float* to = pack(combined->data, kComponents);
      std::atomic<bool> fine{true};
      share(parallel_for, workers_for(static_cast<double>(tiles * task.tile_size()) / 8), tiles, 1,
            [&](ItemQueue& queue) {
              for (int64_t t, end; queue.take(t, end);) {
                const int64_t size = task.product.depth * task.tiles[static_cast<size_t>(t)].vectors * kLanes<A>;
                const float* from = packed + t * taps * task.product.depth * kTileLanes<A>;
                if (!combine_taps(from, size, to + t * task.tile_size())) fine.store(false);
              }
            });
      task.squares = fine.load();
      if (task.squares) made = combined;
    }
  task.kept = made;
  keeper.keep(order(), made, made->data.bytes());
  return task;
}

// Calls put(tile, positions, begin, end, sums) for everything in chunk `c` and tiles [first, last).
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
