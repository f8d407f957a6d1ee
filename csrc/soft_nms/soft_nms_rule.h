// How a box that is taken lowers the scores of those it overlaps: one rule for CPU and GPU, scalars and vectors.
#pragma once
#include "common/exp.h"

namespace structops {

enum class SoftNmsMethod : int { hard = 0, linear = 1, gaussian = 2 };

template <class T>
struct SoftNmsRule {
  SoftNmsMethod method;
  T iou_limit;    // the largest T not above the threshold; the Gaussian has none
  T scale;        // -1 / sigma, of the Gaussian
  T score_limit;  // boxes that score no more are out
};

// What a score becomes under a box of this IoU. A weight of 0 is the end of a score, infinite ones too.
template <class T, class V = T, class B = FloatBits<T>>
STRUCTOPS_HOST_DEVICE V soften(const SoftNmsRule<T>& rule, V iou, V score) {
  const V zero{}, one = zero + T(1);
  if (rule.method == SoftNmsMethod::hard) return iou > rule.iou_limit ? zero : score;
  if (rule.method == SoftNmsMethod::linear) {
    const V weight = one - iou;
    const V lower = weight > zero ? score * weight : zero;
    return iou > rule.iou_limit ? lower : score;
  }
  const V weight = exp_of_negative<T, V, B>(iou * iou * rule.scale);
  const V lower = weight > zero ? score * weight : zero;
  return iou > zero ? lower : score;
}

}  // namespace structops
