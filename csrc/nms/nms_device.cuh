// What kernels that suppress boxes share: scores as keys that sort, where classes begin, and the IoU of two boxes
// compared with a threshold.
#pragma once
#include <limits>

#include "common/cuda/device.cuh"
#include "nms/nms_cuda.h"
#include "nms/nms_threshold.h"

namespace structops::cuda {

// Rising for falling scores; -0 equal to 0, NaN last.
template <class T>
__device__ __forceinline__ NmsKey<T> nms_key(T score) {
  if (score == T(0)) score = T(0);
  NmsKey<T> bits;
  memcpy(&bits, &score, sizeof(bits));
  // As integers, floats rise with their bits when positive and fall when negative.
  const NmsKey<T> rising = bits ^ ((bits >> (8 * sizeof(bits) - 1)) & std::numeric_limits<NmsKey<T>>::max());
  return score != score ? kNoBox<T> - 1 : ~rising;
}

template <class T>
struct alignas(16) Box {
  T x1, y1, x2, y2;
};

template <class T>
__device__ __forceinline__ T area(const Box<T>& b) {
  return mul_rn(sub_rn(b.x2, b.x1), sub_rn(b.y2, b.y1));
}

// Where the class of a place begins: the first place whose class, of rising classes, is not less. 0 without classes.
__device__ __forceinline__ int class_begin(const int64_t* classes, int place) {
  int low = 0;
  if (classes == nullptr) return low;
  const int64_t mine = classes[place];
  for (int high = place; low < high;) {
    const int middle = low + (high - low) / 2;
    if (classes[middle] < mine) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Whether the rounded IoU exceeds the threshold, without dividing unless it is close. Where it is
// further away than the rounding of one product and one quotient, comparing with threshold * union
// gives the same answer; above and below are the threshold widened by that.
template <class T>
struct Overlap {
  T threshold, below, above;

  explicit Overlap(double iou_threshold) : threshold(round_down<T>(iou_threshold)) {
    const T infinity = std::numeric_limits<T>::infinity();
    const bool ordinary = threshold > T(1e-6) && threshold < T(1e6);
    const T margin = 8 * std::numeric_limits<T>::epsilon();
    below = ordinary ? threshold * (1 - margin) : -infinity;
    above = ordinary ? threshold * (1 + margin) : infinity;
  }

  // a's area first, then b's: either order rounds alike.
  __device__ __forceinline__ bool operator()(const Box<T>& a, T area_a, const Box<T>& b, T area_b) const {
    // fmin and fmax pass over a NaN, but its box's area is NaN, and then every comparison fails.
    const T width = sub_rn(fmin(a.x2, b.x2), fmax(a.x1, b.x1)), height = sub_rn(fmin(a.y2, b.y2), fmax(a.y1, b.y1));
    if (!(width > T(0) && height > T(0))) return false;
    const T intersection = mul_rn(width, height);
    const T joint = sub_rn(add_rn(area_a, area_b), intersection);
    if (joint > T(1e-30)) {  // below, products lose digits
      if (intersection < mul_rn(joint, below)) return false;
      if (intersection > mul_rn(joint, above)) return true;
    }
    return div_rn(intersection, joint) > threshold;
  }
};

}  // namespace structops::cuda
