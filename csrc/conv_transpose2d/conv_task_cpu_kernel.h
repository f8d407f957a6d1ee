// Products made ready: what every op on the engine of transposed convolutions includes, once per instruction set.
// clang-format off: in this order
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"
#include "common/cpu/vector_math.h"
#include "conv_transpose2d/conv_epilogue_cpu.h"
#include "conv_transpose2d/conv_product_cpu_kernel.h"
#include "conv_transpose2d/conv_chunk_cpu_kernel.h"
#include "conv_transpose2d/conv_rows_cpu_kernel.h"
// clang-format on

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

// A product made ready: its weights packed, `group` of the channels' pixels found.
template <class S, class R>
inline Task<R, acc_t<S>> prepare(Product product, const Rows<S, R>& rows, int64_t group, const S* weight,
                                 const PanelKeeper& keeper, ParallelFor parallel_for) {
  using A = acc_t<S>;
  product.image_stride = rows.image_stride;
  product.pixel_stride = rows.pixel_stride;
  Task<R, A> task{std::move(product), rows.data + group * rows.group_stride, nullptr, {}, 0, 0, 0};
  task.tiles = tiles_of<A>(task.product);
  PanelOrder order(task.product, sizeof(R));
  task.kept = keeper.find(order);
  if (task.kept == nullptr) {
    const int64_t bytes = static_cast<int64_t>(task.tiles.size()) * task.tile_size() * static_cast<int64_t>(sizeof(R));
    const auto made = std::make_shared<Panels>();
    R* packed = reinterpret_cast<R*>(made->data.at_least(std::max<int64_t>(1, bytes)));
    made->finite = pack_panels<S, R, A>(task.product, weight, packed, parallel_for);
    task.kept = made;
    keeper.keep(std::move(order), made, bytes);
  }
  return task;
}
