// A transposed convolution, and the gradient of its input, as products. Included once per instruction set.
#include "conv_transpose2d/conv_task_cpu_kernel.h"
// After it.
#include "conv_transpose2d/conv_convolve_cpu_kernel.h"
#include "conv_transpose2d/conv_depthwise_cpu_kernel.h"
#include "conv_transpose2d/conv_few_cpu_kernel.h"
#include "conv_transpose2d/conv_grad_weight_cpu_kernel.h"

template <class S, class R>
void conv_transpose2d(const ConvTransposeParams& p, const S* input, bool planar, const S* weight,
                      const WeightStrides& strides, const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  if constexpr (std::is_same_v<R, acc_t<S>>)
    if (p.groups > 1 && p.groups == p.in_channels && p.groups == p.out_channels)
      return depthwise<S>(p, input, planar, weight, strides, e, out, parallel_for);
  if (planar && has_few_outputs(p)) return few_outputs<S>(p, input, weight, strides, e, out, parallel_for);
  Scratch<R> copy;
  const auto rows =
      rows_of<S, R>(input, planar, p.batch, p.in_channels, p.groups, p.height * p.width, copy, parallel_for);
  // Rows of a planar output want all phases of a row at once, to be written without gaps. An output of one channel, a
  // segmentation head's last, is planar in either layout: pixel by pixel, each would be a vector of its own.
  const bool to_rows = planar || p.out_channels == 1;
  // Few channels want the lanes of all phases to fill their vectors; many do without positions at the border that only
  // some phases have.
  const bool many = p.out_channels / p.groups >= kTileLanes<acc_t<S>>, exact = !to_rows && many;
  const auto plan = [&](const Axis& vertical, const Axis& horizontal) {
    const auto ys = phase_groups(vertical, exact), xs = phase_groups(horizontal, exact);
    std::vector<Product> products;
    for (int64_t group = 0; group < p.groups; ++group)
      for (const PhaseGroup& y : ys)
        for (const PhaseGroup& x : xs) {
          products.push_back(forward_product(p, y, x, strides, group, to_rows));
          if (!to_rows) join_pixels(p, products.back());
        }
    return products;
  };
  std::vector<Product> products;
  bool squares = false;
  if constexpr (std::is_same_v<R, float>) {
    const bool wide = !exact && widens(vertical(p)) && widens(horizontal(p));
    products = wide ? plan(widened(vertical(p)), widened(horizontal(p))) : plan(vertical(p), horizontal(p));
    squares = std::any_of(products.begin(), products.end(), in_squares) &&
              tame(rows.data, p.batch * p.in_channels * p.height * p.width, parallel_for);
    if (wide && !squares) products.clear();
  }
  if (products.empty()) products = plan(vertical(p), horizontal(p));
  const PanelKeeper keeper = keeper_of(weight, extent(p, strides), p.batch * p.height * p.width, parallel_for);
  std::vector<Task<R, acc_t<S>>> tasks;
  for (Product& product : products) {
    const int64_t group = product.runs[0].channel / (p.out_channels / p.groups);
    tasks.push_back(prepare(std::move(product), rows, group, weight, squares, keeper, parallel_for));
  }
  const Destination to{p.out_channels, p.out_height,     p.out_width,     p.stride_height,
                       p.stride_width, p.padding_height, p.padding_width, to_rows};
  convolve(tasks, to, e, out, parallel_for);
}

template <class S, class R>
void conv_transpose2d_grad_input(const ConvTransposeParams& p, const S* grad, bool planar, const S* weight,
                                 const WeightStrides& strides, S* grad_input, ParallelFor parallel_for) {
  Scratch<R> copy;
  const auto rows =
      rows_of<S, R>(grad, planar, p.batch, p.out_channels, p.groups, p.out_height * p.out_width, copy, parallel_for);
  const PanelKeeper keeper = keeper_of(weight, extent(p, strides), p.batch * p.height * p.width, parallel_for);
  std::vector<Task<R, acc_t<S>>> tasks;
  for (int64_t group = 0; group < p.groups; ++group)
    tasks.push_back(
        prepare(grad_input_product(p, strides, group, planar), rows, group, weight, false, keeper, parallel_for));
  const Destination to{p.in_channels, p.height, p.width, 1, 1, 0, 0, planar};
  const Epilogue<S, acc_t<S>> nothing{nullptr, nullptr, nullptr, Activation::none, 0, false};
  convolve(tasks, to, nothing, grad_input, parallel_for);
}
