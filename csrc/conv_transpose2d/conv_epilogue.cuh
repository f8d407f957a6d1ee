// What follows the sums of a transposed convolution on the GPU, and where a position of an output phase lies.
#pragma once
#include <cmath>

#include "common/cuda/device.cuh"
#include "conv_transpose2d/conv_transpose2d.h"
#include "conv_transpose2d/conv_transpose2d_cuda.h"

namespace structops::cuda {

template <class A>
__device__ __forceinline__ A activate(A x, int64_t activation, A slope) {
  switch (static_cast<Activation>(activation)) {
    case Activation::relu:
      return x <= 0 ? A(0) : x;  // keeps NaN
    case Activation::leaky_relu:
      return x <= 0 ? x * slope : x;
    case Activation::gelu:
      return x * A(0.5) * (1 + std::erf(x * A(0.70710678118654752440)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    default:
      return x;
  }
}

template <class T, class A>
__device__ __forceinline__ A finish(const ConvEpilogue<T, A>& e, A sum, int64_t channel, T residual) {
  if (e.bias) sum += e.bias[channel];
  if (e.scale) sum *= e.scale[channel];
  if (e.shift) sum += e.shift[channel];
  const A added = e.residual ? A(up(residual)) : A(0);
  return e.residual_last ? activate(sum, e.activation, e.negative_slope) + added
                         : activate(sum + added, e.activation, e.negative_slope);
}

// The taps of one axis for one phase of the outputs (or, of the gradient of the input, all of them): tap `first`, and
// every step'th after it; a position q reads pixel q * scale + (target - tap * dilation) / divisor.
struct ConvTaps {
  int64_t first, step, count;
  int64_t scale, target, dilation, divisor;

  __device__ __forceinline__ int64_t tap(int64_t i) const { return first + i * step; }
  __device__ __forceinline__ int64_t offset(int64_t i) const { return (target - tap(i) * dilation) / divisor; }
};
__device__ __forceinline__ ConvTaps conv_taps(const ConvSteps& s, int64_t phase, bool forward) {
  if (!forward) return {0, 1, s.kernel, s.stride, -s.padding, -s.dilation, 1};
  const int64_t target = phase + s.padding, step = s.stride / s.common;
  if (target % s.common != 0) return {0, 1, 0, 1, target, s.dilation, s.stride};
  const int64_t first = target / s.common * s.inverse % step;
  return {first, step, first < s.kernel ? (s.kernel - first + step - 1) / step : 0, 1, target, s.dilation, s.stride};
}

// Outputs of one phase.
struct ConvPhase {
  int64_t y, x, step_y, step_x, rows, columns;

  __device__ __forceinline__ ConvPhase(const ConvShape& s, const ConvMap& to, int64_t phase)
      : y(s.forward ? phase / s.x.stride : 0),
        x(s.forward ? phase % s.x.stride : 0),
        step_y(s.forward ? s.y.stride : 1),
        step_x(s.forward ? s.x.stride : 1),
        rows(to.height > y ? (to.height - y + step_y - 1) / step_y : 0),
        columns(to.width > x ? (to.width - x + step_x - 1) / step_x : 0) {}
};

}  // namespace structops::cuda
