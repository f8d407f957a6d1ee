// Boxes from a detector head's regression outputs: the arithmetic that decoding shares, on CPU and GPU alike.
//
// T is float or double. Every operation rounds once, in the order of torchvision's Python (which runs it as one torch
// op each), so that results agree with it to the bit. That is why exponentials are not taken here: they come from
// torch's own exp, whose last bit differs between machines and devices, and no other would agree with it.
#pragma once

#include "common/host_device.h"

namespace structops {

template <class T>
struct BoxOf {
  T x1, y1, x2, y2;
};

// The centre and the size of an anchor or proposal.
template <class T>
struct CentreSize {
  T x, y, width, height;
};

// No contraction: the build forbids it to host compilers (-ffp-contract=off) and to nvcc (-fmad=false).
template <class T>
STRUCTOPS_HOST_DEVICE CentreSize<T> centre_size(const BoxOf<T>& b) {
  const T width = b.x2 - b.x1, height = b.y2 - b.y1;
  return {b.x1 + T(0.5) * width, b.y1 + T(0.5) * height, width, height};
}

// R-CNN's deltas: dx, dy in units of the anchor's size; ex, ey the exponentials of the (clamped) log sizes.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> decode_deltas(const CentreSize<T>& anchor, T dx, T dy, T ex, T ey) {
  const T x = dx * anchor.width + anchor.x, y = dy * anchor.height + anchor.y;
  const T half_width = T(0.5) * (ex * anchor.width), half_height = T(0.5) * (ey * anchor.height);
  return {x - half_width, y - half_height, x + half_width, y + half_height};
}

// YOLO's offsets within a grid cell in whose middle the anchor lies: sx, sy in units of the cell (the sigmoids of what
// the head gave), ex, ey as above; stride is the cell's side.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> decode_cells(const CentreSize<T>& anchor, T sx, T sy, T ex, T ey, T stride) {
  const T x = (sx - T(0.5)) * stride + anchor.x, y = (sy - T(0.5)) * stride + anchor.y;
  const T half_width = T(0.5) * (ex * anchor.width), half_height = T(0.5) * (ey * anchor.height);
  return {x - half_width, y - half_height, x + half_width, y + half_height};
}

// FCOS's distances from the middle of an anchor to the four edges, in units of the anchor's size or in pixels. The
// middle is (x1 + x2) / 2, which does not round as centre_size does.
template <class T>
STRUCTOPS_HOST_DEVICE CentreSize<T> middle_size(const BoxOf<T>& b) {
  return {T(0.5) * (b.x1 + b.x2), T(0.5) * (b.y1 + b.y2), b.x2 - b.x1, b.y2 - b.y1};
}
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> decode_distances(const CentreSize<T>& anchor, BoxOf<T> d, bool in_sizes) {
  if (in_sizes) d = {d.x1 * anchor.width, d.y1 * anchor.height, d.x2 * anchor.width, d.y2 * anchor.height};
  return {anchor.x - d.x1, anchor.y - d.y1, anchor.x + d.x2, anchor.y + d.y2};
}

// A delta without its weight, as torch divides by a number: on a GPU it multiplies by the reciprocal.
template <class T>
STRUCTOPS_HOST_DEVICE T unweighted(T delta, double weight, bool reciprocals) {
  return reciprocals ? delta * (T(1) / static_cast<T>(weight)) : delta / static_cast<T>(weight);
}

// The logarithm of a size, of which torch takes the exponential: no more than `most`; NaN stays.
template <class T>
STRUCTOPS_HOST_DEVICE T size_code(T delta, double weight, bool reciprocals, double most) {
  const T code = unweighted(delta, weight, reciprocals), limit = static_cast<T>(most);
  return code > limit ? limit : code;
}

// As torch.clamp: NaN stays.
template <class T>
STRUCTOPS_HOST_DEVICE T clamp_keeping_nan(T v, T low, T high) {
  const T raised = v < low ? low : v;
  return raised > high ? high : raised;
}

// Into the image [0, width] x [0, height].
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> clip(const BoxOf<T>& b, T height, T width) {
  return {clamp_keeping_nan(b.x1, T(0), width), clamp_keeping_nan(b.y1, T(0), height),
          clamp_keeping_nan(b.x2, T(0), width), clamp_keeping_nan(b.y2, T(0), height)};
}

}  // namespace structops
