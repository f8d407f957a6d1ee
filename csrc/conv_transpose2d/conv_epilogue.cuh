// What follows the sums of a transposed convolution on the GPU.
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

// residual: 0 where there is none
template <class T, class A>
__device__ __forceinline__ T finish(const ConvEpilogue<T, A>& e, A sum, const ConvAffine<A>& by, A residual) {
  const A x = fused(sum, by.scale, by.offset);
  return down<T>(e.residual_last ? activate(x, e.activation, e.negative_slope) + residual
                                 : activate(x + residual, e.activation, e.negative_slope));
}

}  // namespace structops::cuda
