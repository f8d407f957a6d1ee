// A transposed convolution, and the gradient of its input, as products. Included once per instruction set.
// clang-format off: in this order
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"
#include "common/cpu/vector_math.h"
#include "conv_transpose2d/conv_epilogue_cpu.h"
#include "conv_transpose2d/conv_product_cpu_kernel.h"
#include "conv_transpose2d/conv_chunk_cpu_kernel.h"
#include "conv_transpose2d/conv_rows_cpu_kernel.h"
#include "conv_transpose2d/conv_depthwise_cpu_kernel.h"
#include "conv_transpose2d/conv_grad_weight_cpu_kernel.h"
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

template <class S, class R>
void conv_transpose2d(const ConvTransposeParams& p, const S* input, bool planar, const S* weight,
                      const WeightStrides& strides, const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  if constexpr (std::is_same_v<R, acc_t<S>>)
    if (p.groups > 1 && p.groups == p.in_channels && p.groups == p.out_channels && !planar)
      return depthwise<S>(p, input, weight, strides, e, out, parallel_for);
  Scratch<R> copy;
  const auto rows =
      rows_of<S, R>(input, planar, p.batch, p.in_channels, p.groups, p.height * p.width, copy, parallel_for);
  // Rows of a planar output want all phases of a row at once, to be written without gaps.
  const auto ys = phase_groups(vertical(p), !planar), xs = phase_groups(horizontal(p), !planar);
  std::vector<Scratch<R>> panels(static_cast<size_t>(p.groups) * ys.size() * xs.size());
  std::vector<Task<R, acc_t<S>>> tasks;
  for (int64_t group = 0; group < p.groups; ++group)
    for (const PhaseGroup& y : ys)
      for (const PhaseGroup& x : xs)
        tasks.push_back(prepare(forward_product(p, y, x, strides, group, planar), rows, group, weight,
                                panels[tasks.size()], parallel_for));
  const Destination to{p.out_channels, p.out_height,     p.out_width,     p.stride_height,
                       p.stride_width, p.padding_height, p.padding_width, planar};
  convolve(tasks, to, e, out, parallel_for);
}

template <class S, class R>
void conv_transpose2d_grad_input(const ConvTransposeParams& p, const S* grad, bool planar, const S* weight,
                                 const WeightStrides& strides, S* grad_input, ParallelFor parallel_for) {
  Scratch<R> copy;
  const auto rows =
      rows_of<S, R>(grad, planar, p.batch, p.out_channels, p.groups, p.out_height * p.out_width, copy, parallel_for);
  std::vector<Scratch<R>> panels(static_cast<size_t>(p.groups));
  std::vector<Task<R, acc_t<S>>> tasks;
  for (int64_t group = 0; group < p.groups; ++group)
    tasks.push_back(prepare(grad_input_product(p, strides, group, planar), rows, group, weight, panels[tasks.size()],
                            parallel_for));
  const Destination to{p.in_channels, p.height, p.width, 1, 1, 0, 0, planar};
  const Epilogue<S, acc_t<S>> nothing{nullptr, nullptr, nullptr, Activation::none, 0, false};
  convolve(tasks, to, nothing, grad_input, parallel_for);
}
