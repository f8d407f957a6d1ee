// What better boxes do to a score: one rule for CPU and GPU, scalars and vectors.
//
// The smallest weight is found without an exponential a pair: of the Gaussian the smallest exponent is kept. Where
// boxes do not meet, or the better one has nothing to say, the number kept is not below that of no better box at all.
#pragma once
#include "common/exp.h"

namespace structops {

enum class MatrixNmsKernel : int { linear = 0, gaussian = 1 };

template <class T>
struct MatrixNmsRule {
  MatrixNmsKernel kernel;
  T sigma;

  // Of a box with no better one.
  STRUCTOPS_HOST_DEVICE T none() const { return kernel == MatrixNmsKernel::gaussian ? T(0) : T(1); }

  // By a box whose own worst overlap with a better one is `worst`. One that coincides with a better one (1) has no say:
  // that one says the same.
  template <class V>
  STRUCTOPS_HOST_DEVICE V lowering(V worst, V iou) const {
    if (kernel == MatrixNmsKernel::gaussian) return worst * worst - iou * iou;
    const V one = V{} + T(1);
    return worst < one ? (one - iou) / (one - worst) : one;
  }

  // The weight that the least of them amounts to.
  STRUCTOPS_HOST_DEVICE T weight(T least) const {
    return kernel == MatrixNmsKernel::gaussian ? exp_of_negative<T, T, FloatBits<T>>(least * sigma) : least;
  }
};

// An overlap as it counts: NaN is none.
template <class T, class V = T>
STRUCTOPS_HOST_DEVICE V counted(V iou) {
  const V zero{}, one = zero + T(1);
  const V positive = iou > zero ? iou : zero;
  return positive < one ? positive : one;
}

}  // namespace structops
