// Products made ready: what they read, and their weights packed. What every op on the engine of transposed convolutions
// includes, once per instruction set.
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

  const R* panels() const { return kept->numbers<R>(); }
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

template <class R, class A>
inline std::shared_ptr<Panels> room_for(const Task<R, A>& task, int64_t factors) {
  const int64_t numbers = static_cast<int64_t>(task.tiles.size()) * factors * task.product.depth * kTileLanes<A>;
  auto panels = std::make_shared<Panels>();
  panels->data.at_least(std::max<int64_t>(1, numbers * static_cast<int64_t>(sizeof(R))));
  return panels;
}

// The panels of combined taps from those of the taps. Returns whether all weights are tame.
inline bool combine_panels(const Task<float, float>& task, const float* taps, float* to, ParallelFor parallel_for) {
  const int64_t tiles = static_cast<int64_t>(task.tiles.size()), depth = task.product.depth;
  const int64_t count = static_cast<int64_t>(task.product.taps.size());
  std::atomic<bool> fine{true};
  share(parallel_for, workers_for(static_cast<double>(tiles * count * depth * kTileVectors)), tiles, 1,
        [&](ItemQueue& queue) {
          for (int64_t t, end; queue.take(t, end);) {
            const int64_t size = depth * task.tiles[static_cast<size_t>(t)].vectors * kLanes<float>;
            const int64_t whole = t * depth * kTileLanes<float>;
            if (!combine_taps(taps + count * whole, size, to + kComponents * whole)) fine.store(false);
          }
        });
  return fine.load();
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

  const int64_t taps = static_cast<int64_t>(task.product.taps.size());
  std::shared_ptr<Panels> made = room_for(task, taps);
  R* packed = made->numbers<R>();
  made->finite = pack_panels<S, R, A>(task.product, weight, packed, parallel_for);
  if constexpr (std::is_same_v<R, float>)
    if (squares) {
      const std::shared_ptr<Panels> combined = room_for(task, kComponents);
      task.squares = combine_panels(task, packed, combined->numbers<float>(), parallel_for);
      if (task.squares) made = combined;
    }
  task.kept = made;
  keeper.keep(order(), made, made->data.bytes());
  return task;
}
