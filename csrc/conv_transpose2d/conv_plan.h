// The products that make up a transposed convolution and the gradient of its input.
#pragma once
#include "conv_transpose2d/conv_axis.h"
#include "conv_transpose2d/conv_gemm.h"

namespace structops::cpu {

struct WeightStrides {
  int64_t in, out, y, x;  // of weight [in_channels, out_channels / groups, kernel_height, kernel_width]
};

// Numbers from the first weight to the last.
inline int64_t extent(const ConvTransposeParams& p, const WeightStrides& w) {
  return (p.in_channels - 1) * w.in + (p.out_channels / p.groups - 1) * w.out + (p.kernel_height - 1) * w.y +
         (p.kernel_width - 1) * w.x + 1;
}

// The forward of one group of channels, for outputs of one pair of phase groups. Pixels are those of a map with
// `pixel_stride` and `image_stride`.
inline Product forward_product(const ConvTransposeParams& p, const PhaseGroup& ys, const PhaseGroup& xs,
                               const WeightStrides& w, int64_t group, bool planar) {
  Product product{};
  product.batch = p.batch;
  product.rows_height = p.height;
  product.rows_width = p.width;
  product.depth = p.in_channels / p.groups;
  product.first_y = ys.first, product.count_y = ys.count, product.first_x = xs.first, product.count_x = xs.count;
  product.step_y = product.step_x = 1;
  const int64_t channels = p.out_channels / p.groups, ny = static_cast<int64_t>(ys.phases.size());
  const int64_t nx = static_cast<int64_t>(xs.phases.size());
  product.lanes = ny * nx * channels;
  product.source_stride = w.in;
  product.planar_runs = planar;
  product.whole = planar ? nx : 1;
  const bool complete = nx == p.stride_width;
  for (int64_t y = 0; y < ny; ++y) {
    const int64_t outer = planar ? channels : nx, inner = planar ? nx : channels;
    for (int64_t o = 0; o < outer; ++o) {
      const int64_t lane = (y * outer + o) * inner, first = group * channels;
      if (!planar)
        product.runs.push_back({lane, inner, ys.phases[y], xs.phases[o], first});
      else if (complete)
        product.runs.push_back({lane, inner, ys.phases[y], xs.phases[0], first + o});
      else
        for (int64_t x = 0; x < nx; ++x) product.runs.push_back({lane + x, 1, ys.phases[y], xs.phases[x], first + o});
    }
  }
  for (size_t ty = 0; ty < ys.offsets.size(); ++ty)
    for (size_t tx = 0; tx < xs.offsets.size(); ++tx) {
      product.taps.push_back({ys.offsets[ty], xs.offsets[tx]});
      for (int64_t y = 0; y < ny; ++y) {
        const int64_t outer = planar ? channels : nx, inner = planar ? nx : channels;
        for (int64_t o = 0; o < outer; ++o)
          for (int64_t i = 0; i < inner; ++i) {
            const int64_t channel = planar ? o : i, x = planar ? i : o;
            const int64_t ky = ys.taps[y][ty], kx = xs.taps[x][tx];
            const bool exists = ky < p.kernel_height && kx < p.kernel_width;
            product.source.push_back(exists ? group * product.depth * w.in + channel * w.out + ky * w.y + kx * w.x
                                            : -1);
          }
      }
    }
  return product;
}

// Where the channels of a pixel are next to each other, so are those of neighbouring pixels: the phases of a row become
// one run, whose channel counts on. For a product of all channels.
inline void join_pixels(const ConvTransposeParams& p, Product& product) {
  const int64_t pixels = p.stride_width, channels = p.out_channels;
  if (p.groups > 1 || static_cast<int64_t>(product.runs.size()) % pixels != 0) return;
  std::vector<Run> joined;
  for (size_t i = 0; i < product.runs.size(); i += static_cast<size_t>(pixels)) {
    Run run = product.runs[i];
    for (int64_t x = 0; x < pixels; ++x) {
      const Run& next = product.runs[i + static_cast<size_t>(x)];
      if (next.phase_x != run.phase_x + x || next.phase_y != run.phase_y) return;
    }
    run.count = pixels * channels;
    joined.push_back(run);
  }
  product.runs = std::move(joined);
  product.whole = pixels * channels;
}

// The gradient of the input of one group: an ordinary convolution of the output's gradient, at every stride'th pixel.
inline Product grad_input_product(const ConvTransposeParams& p, const WeightStrides& w, int64_t group, bool planar) {
  Product product{};
  product.batch = p.batch;
  product.rows_height = p.out_height;
  product.rows_width = p.out_width;
  product.depth = p.out_channels / p.groups;
  product.count_y = p.height, product.count_x = p.width;
  product.step_y = p.stride_height, product.step_x = p.stride_width;
  product.lanes = p.in_channels / p.groups;
  product.source_stride = w.out;
  product.planar_runs = planar;
  product.whole = 1;
  const int64_t first = group * product.lanes;
  if (planar)
    for (int64_t c = 0; c < product.lanes; ++c) product.runs.push_back({c, 1, 0, 0, first + c});
  else
    product.runs.push_back({0, product.lanes, 0, 0, first});
  for (int64_t y = 0; y < p.kernel_height; ++y)
    for (int64_t x = 0; x < p.kernel_width; ++x) {
      product.taps.push_back({p.padding_height - y * p.dilation_height, p.padding_width - x * p.dilation_width});
      for (int64_t c = 0; c < product.lanes; ++c) product.source.push_back((first + c) * w.in + y * w.y + x * w.x);
    }
  return product;
}

}  // namespace structops::cpu
