// What the CPU kernel of the transposed convolution is told: a product whose rows are pixels found through taps.
//
// For every position and every lane: sum over taps and channels of rows[pixel of (position, tap)][channel] x
// panels[tap][channel][lane]. A lane is an output channel of a phase. A pixel outside the image contributes nothing.
// The forward has positions q and one product for each pair of phase groups (conv_axis.h); the gradient of the input
// has the input's pixels as positions, all taps of the kernel, and one phase.
#pragma once
#include <cstdint>
#include <vector>

#include "conv_transpose2d/conv_transpose2d.h"

namespace structops::cpu {

struct Tap {
  int64_t y, x;  // the pixel is position * step - tap
};

// Lanes of one phase and consecutive output channels (or, in a planar output, of one channel and consecutive phases).
struct Run {
  int64_t lane, count;
  int64_t phase_y, phase_x, channel;
};

struct Product {
  int64_t batch, rows_height, rows_width;      // of the image that taps look at
  int64_t image_stride, pixel_stride, depth;   // in elements; channels of a pixel are next to each other
  int64_t first_y, first_x, count_y, count_x;  // positions
  int64_t step_y, step_x;                      // pixels of the image a position
  std::vector<Tap> taps;
  // Where a tap of a lane has its weights in the tensor: weight[source[tap * lanes + lane] + channel * source_stride];
  // -1: they are zeros.
  std::vector<int64_t> source;
  int64_t source_stride, lanes;
  std::vector<Run> runs;  // in order of their lanes
  bool planar_runs;       // of one channel and consecutive phases
  int64_t whole;          // lanes that belong in one tile: 1, or the phases of a channel
};

// Lanes of a tile that is `lanes` wide, without cutting what belongs together.
inline int64_t tile_width(const Product& p, int64_t lanes) {
  return p.whole <= lanes ? lanes / p.whole * p.whole : lanes;
}

// Where results go: output[n, channel, position_y * stride_y + phase_y - padding_y, ...].
struct Destination {
  int64_t channels, height, width;  // of the whole output
  int64_t stride_y, stride_x, padding_y, padding_x;
  bool planar;  // NCHW; else NHWC
};

// What follows the sums: activation(sum * scale + offset + residual). Null: 1, 0 and 0. A is the type of arithmetic, S
// that of storage; residual has the output's layout.
template <class S, class A>
struct Epilogue {
  const A* scale;
  const A* offset;
  const S* residual;
  Activation activation;
  A negative_slope;
  bool residual_last;  // added to what the activation gives
};

}  // namespace structops::cpu
