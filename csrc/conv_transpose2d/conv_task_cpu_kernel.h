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

// A product made ready: its weights packed, `group` of the channels' pixels found.
template <class S, class R>
inline Task<R, acc_t<S>> prepare(Product product, const Rows<S, R>& rows, int64_t group, const S* weight,
                                 Scratch<R>& panels, ParallelFor parallel_for) {
  using A = acc_t<S>;
  product.image_stride = rows.image_stride;
  product.pixel_stride = rows.pixel_stride;
  Task<R, A> task{std::move(product), rows.data + group * rows.group_stride, nullptr, true, {}, 0, 0, 0};
  task.tiles = tiles_of<A>(task.product);
  R* packed = panels.at_least(std::max<int64_t>(1, static_cast<int64_t>(task.tiles.size()) * task.tile_size()));
  task.finite = pack_panels<S, R, A>(task.product, weight, packed, parallel_for);
  task.panels = packed;
  return task;
}
