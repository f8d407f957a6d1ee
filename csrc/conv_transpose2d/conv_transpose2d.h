// Transposed convolution: sizes, the epilogue, and CPU launchers, free of torch.
//
// Three maps, each linear in both of its arguments, and each the derivative of the others (structops/ops says how):
//   forward      output[n, co, iy * stride - padding + ky * dilation, ...] += input[n, ci, iy, ...] weight[ci, co, ky,
//   ...] grad_input   the same sum, read the other way: an ordinary strided convolution of the gradient grad_weight the
//   same sum over all n, iy, ix
// The forward is computed in phases: outputs whose coordinates agree modulo the stride use the same taps, so each phase
// is an ordinary convolution (a matrix product for every tap), and nothing is multiplied by an inserted zero.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

// As structops/ops/conv_transpose2d.py numbers them.
enum class Activation : int64_t { none = 0, relu = 1, leaky_relu = 2, gelu = 3, silu = 4, sigmoid = 5 };
constexpr int64_t kActivations = 6;

struct ConvTransposeParams {
  int64_t batch, in_channels, out_channels, groups;  // channels of all groups together
  int64_t height, width, out_height, out_width;
  int64_t kernel_height, kernel_width;
  int64_t stride_height, stride_width, padding_height, padding_width, dilation_height, dilation_width;
};

}  // namespace structops
