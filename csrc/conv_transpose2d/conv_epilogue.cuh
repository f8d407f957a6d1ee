// What follows the sums of a transposed convolution on the GPU.
#pragma once
#include <cmath>

#include "common/cuda/device.cuh"
#include "conv_transpose2d/conv_transpose2d.h"
#include "conv_transpose2d/conv_transpose2d_cuda.h"

namespace structops::cuda {

// Of V outputs: one switch for all of them.
template <int V, class A>
__device__ __forceinline__ void activate(A (&x)[V], int64_t activation, A slope) {
  const auto each = [&](const auto& function) {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = function(x[v]);
  };
  switch (static_cast<Activation>(activation)) {
    case Activation::relu:
      return each([](A a) { return a <= 0 ? A(0) : a; });  // keeps NaN
    case Activation::leaky_relu:
      return each([slope](A a) { return a <= 0 ? a * slope : a; });
    case Activation::gelu:
      return each([](A a) { return a * A(0.5) * (1 + std::erf(a * A(0.70710678118654752440))); });
    case Activation::silu:
      return each([](A a) { return a / (1 + std::exp(-a)); });
    case Activation::sigmoid:
      return each([](A a) { return 1 / (1 + std::exp(-a)); });
    default:
      return;
  }
}

// (sum + bias) * scale + shift as sum * scale + offset: of one channel.
template <class A>
struct ConvAffine {
  A scale, offset;
};
template <class T, class A>
__device__ __forceinline__ ConvAffine<A> affine(const ConvEpilogue<T, A>& e, int64_t channel) {
  const A scale = e.scale ? e.scale[channel] : A(1), bias = e.bias ? e.bias[channel] : A(0);
  return {scale, fused(bias, scale, e.shift ? e.shift[channel] : A(0))};
}

// V outputs. by(v): the affine of each; residual: theirs, if there is one.
template <int V, class T, class A, class By>
__device__ __forceinline__ Pack<T, V> finish(const ConvEpilogue<T, A>& e, const A* sums, const By& by,
                                             const Pack<T, V>& residual) {
  A x[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const ConvAffine<A> f = by(v);
    x[v] = fused(sums[v], f.scale, f.offset);
  }
  const auto add = [&] {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] += A(up(residual, v));
  };
  if (e.residual && !e.residual_last) add();
  activate(x, e.activation, e.negative_slope);
  if (e.residual && e.residual_last) add();
  Pack<T, V> pack;
#pragma unroll
  for (int v = 0; v < V; ++v) pack.value[v] = down<T>(x[v]);
  return pack;
}

}  // namespace structops::cuda
