// One box and its anchor, in both directions and with the gradients: on CPU and GPU alike. Every operation rounds once,
// in torchvision's order; the transcendental functions are torch's own, between coding_arguments and the rest.
#pragma once
#include "box_coding/box_coding.h"
#include "common/box_coding.h"

namespace structops {

// Arguments of the exponential (decoding) or the logarithm, and its values.
template <class T>
struct Curve {
  T x, y, width, height;  // x, y: of the offsets, of cells alone; width, height: of the sizes
};

// From exp(-x). torch's own sigmoid is not used: on a CPU its last bit depends on where in a tensor an element lies.
template <class T>
STRUCTOPS_HOST_DEVICE T sigmoid_of(T e) {
  return T(1) / (T(1) + e);
}

template <class T>
STRUCTOPS_HOST_DEVICE CentreSize<T> anchor_of(Coding coding, const BoxOf<T>& b) {
  return coding == Coding::distances || coding == Coding::pixel_distances ? middle_size(b) : centre_size(b);
}

// As torch.clamp(max=high): NaN stays.
template <class T>
STRUCTOPS_HOST_DEVICE T at_most(T v, T high) {
  return v > high ? high : v;
}

template <class T>
STRUCTOPS_HOST_DEVICE Curve<T> decode_arguments(const CodingParams& p, const BoxOf<T>& code) {
  const T clip = static_cast<T>(p.clip);
  if (p.coding == Coding::cells) return {-code.x1, -code.y1, at_most(code.x2, clip), at_most(code.y2, clip)};
  return {T(0), T(0), at_most(code.x2 / T(p.weights[2]), clip), at_most(code.y2 / T(p.weights[3]), clip)};
}

template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> decode(const CodingParams& p, const CentreSize<T>& anchor, const BoxOf<T>& code,
                                      const Curve<T>& e) {
  switch (p.coding) {
    case Coding::deltas:
      return decode_deltas(anchor, code.x1 / T(p.weights[0]), code.y1 / T(p.weights[1]), e.width, e.height);
    case Coding::cells:
      return decode_cells(anchor, sigmoid_of(e.x), sigmoid_of(e.y), e.width, e.height, static_cast<T>(p.stride));
    default:
      return decode_distances(anchor, code, p.coding == Coding::distances);
  }
}

// What the gradient g of a decoded box gives to its code; that of its anchor's centre and size is added to to_anchor.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> decode_gradient(const CodingParams& p, const CentreSize<T>& anchor, const BoxOf<T>& code,
                                               const Curve<T>& e, const BoxOf<T>& g, CentreSize<T>& to_anchor) {
  const T to_x = g.x1 + g.x2, to_y = g.y1 + g.y2;
  to_anchor.x += to_x;
  to_anchor.y += to_y;
  if (!has_sizes(p.coding)) {
    if (p.coding == Coding::pixel_distances) return {-g.x1, -g.y1, g.x2, g.y2};
    to_anchor.width += g.x2 * code.x2 - g.x1 * code.x1;
    to_anchor.height += g.y2 * code.y2 - g.y1 * code.y1;
    return {-g.x1 * anchor.width, -g.y1 * anchor.height, g.x2 * anchor.width, g.y2 * anchor.height};
  }
  const T to_width = T(0.5) * (g.x2 - g.x1), to_height = T(0.5) * (g.y2 - g.y1), clip = static_cast<T>(p.clip);
  to_anchor.width += to_width * e.width;
  to_anchor.height += to_height * e.height;
  const T to_log_width = to_width * anchor.width * e.width, to_log_height = to_height * anchor.height * e.height;
  if (p.coding == Coding::cells) {
    const T stride = static_cast<T>(p.stride), sx = sigmoid_of(e.x), sy = sigmoid_of(e.y);
    return {to_x * stride * (sx * (T(1) - sx)), to_y * stride * (sy * (T(1) - sy)),
            code.x2 < clip ? to_log_width : T(0), code.y2 < clip ? to_log_height : T(0)};
  }
  const T wx = T(p.weights[0]), wy = T(p.weights[1]), ww = T(p.weights[2]), wh = T(p.weights[3]);
  to_anchor.width += to_x * (code.x1 / wx);
  to_anchor.height += to_y * (code.y1 / wy);
  return {to_x * anchor.width / wx, to_y * anchor.height / wy, code.x2 / ww < clip ? to_log_width / ww : T(0),
          code.y2 / wh < clip ? to_log_height / wh : T(0)};
}

template <class T>
STRUCTOPS_HOST_DEVICE Curve<T> encode_arguments(const CodingParams& p, const CentreSize<T>& anchor,
                                                const BoxOf<T>& box) {
  const CentreSize<T> b = centre_size(box);
  Curve<T> out{T(0), T(0), b.width / anchor.width, b.height / anchor.height};
  if (p.coding == Coding::cells) {
    const T stride = static_cast<T>(p.stride);
    const T x = (b.x - anchor.x) / stride + T(0.5), y = (b.y - anchor.y) / stride + T(0.5);
    out.x = x / (T(1) - x);
    out.y = y / (T(1) - y);
  }
  return out;
}

template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> encode(const CodingParams& p, const CentreSize<T>& anchor, const BoxOf<T>& box,
                                      const Curve<T>& l) {
  if (p.coding == Coding::cells) return {l.x, l.y, l.width, l.height};
  if (p.coding == Coding::deltas) {
    const CentreSize<T> b = centre_size(box);
    return {T(p.weights[0]) * (b.x - anchor.x) / anchor.width, T(p.weights[1]) * (b.y - anchor.y) / anchor.height,
            T(p.weights[2]) * l.width, T(p.weights[3]) * l.height};
  }
  const BoxOf<T> d{anchor.x - box.x1, anchor.y - box.y1, box.x2 - anchor.x, box.y2 - anchor.y};
  if (p.coding == Coding::pixel_distances) return d;
  return {d.x1 / anchor.width, d.y1 / anchor.height, d.x2 / anchor.width, d.y2 / anchor.height};
}

// What the gradient g of a code gives to its box; that of its anchor's centre and size is added to to_anchor.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> encode_gradient(const CodingParams& p, const CentreSize<T>& anchor, const BoxOf<T>& box,
                                               const BoxOf<T>& g, CentreSize<T>& to_anchor) {
  if (!has_sizes(p.coding)) {
    if (p.coding == Coding::pixel_distances) {
      to_anchor.x += g.x1 - g.x2;
      to_anchor.y += g.y1 - g.y2;
      return {-g.x1, -g.y1, g.x2, g.y2};
    }
    const BoxOf<T> s{g.x1 / anchor.width, g.y1 / anchor.height, g.x2 / anchor.width, g.y2 / anchor.height};
    to_anchor.x += s.x1 - s.x2;
    to_anchor.y += s.y1 - s.y2;
    to_anchor.width -= s.x1 * ((anchor.x - box.x1) / anchor.width) + s.x2 * ((box.x2 - anchor.x) / anchor.width);
    to_anchor.height -= s.y1 * ((anchor.y - box.y1) / anchor.height) + s.y2 * ((box.y2 - anchor.y) / anchor.height);
    return {-s.x1, -s.y1, s.x2, s.y2};
  }
  const CentreSize<T> b = centre_size(box);
  T to_x, to_y, to_log_width = g.x2, to_log_height = g.y2;
  if (p.coding == Coding::cells) {
    const T stride = static_cast<T>(p.stride);
    const T x = (b.x - anchor.x) / stride + T(0.5), y = (b.y - anchor.y) / stride + T(0.5);
    to_x = g.x1 / (x * (T(1) - x)) / stride;
    to_y = g.y1 / (y * (T(1) - y)) / stride;
  } else {
    const T wx = T(p.weights[0]), wy = T(p.weights[1]);
    to_x = g.x1 / anchor.width * wx;
    to_y = g.y1 / anchor.height * wy;
    to_log_width *= T(p.weights[2]);
    to_log_height *= T(p.weights[3]);
    to_anchor.width -= g.x1 * (wx * (b.x - anchor.x) / anchor.width / anchor.width);
    to_anchor.height -= g.y1 * (wy * (b.y - anchor.y) / anchor.height / anchor.height);
  }
  to_anchor.x -= to_x;
  to_anchor.y -= to_y;
  to_anchor.width -= to_log_width / anchor.width;
  to_anchor.height -= to_log_height / anchor.height;
  const T to_width = to_log_width / b.width, to_height = to_log_height / b.height;
  return {T(0.5) * to_x - to_width, T(0.5) * to_y - to_height, T(0.5) * to_x + to_width, T(0.5) * to_y + to_height};
}

// The gradient of an anchor's centre and size as that of its corners.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> anchor_gradient(const CentreSize<T>& to) {
  return {T(0.5) * to.x - to.width, T(0.5) * to.y - to.height, T(0.5) * to.x + to.width, T(0.5) * to.y + to.height};
}

template <class T>
STRUCTOPS_HOST_DEVICE Curve<T> curve_at(const Curves<T>& c, int64_t i) {
  Curve<T> found{};
  if (c.offsets != nullptr) found.x = c.offsets[2 * i], found.y = c.offsets[2 * i + 1];
  if (c.sizes != nullptr) found.width = c.sizes[2 * i], found.height = c.sizes[2 * i + 1];
  return found;
}

template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> box_at(const T* boxes, int64_t i) {
  return {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]};
}
template <class T>
STRUCTOPS_HOST_DEVICE void put_box(T* boxes, int64_t i, const BoxOf<T>& b) {
  boxes[4 * i] = b.x1, boxes[4 * i + 1] = b.y1, boxes[4 * i + 2] = b.x2, boxes[4 * i + 3] = b.y2;
}

// Code or box i of all, with its anchor.
template <bool kDecode, class T>
STRUCTOPS_HOST_DEVICE void put_arguments(const CodingParams& p, const T* in, const CentreSize<T>& anchor, int64_t i,
                                         const Curves<T>& to) {
  const BoxOf<T> one = box_at(in, i);
  const Curve<T> c = kDecode ? decode_arguments(p, one) : encode_arguments(p, anchor, one);
  if (to.offsets != nullptr) to.offsets[2 * i] = c.x, to.offsets[2 * i + 1] = c.y;
  if (to.sizes != nullptr) to.sizes[2 * i] = c.width, to.sizes[2 * i + 1] = c.height;
}
template <bool kDecode, class T>
STRUCTOPS_HOST_DEVICE void put_coded(const CodingParams& p, const T* in, const CentreSize<T>& anchor,
                                     const Curves<T>& values, int64_t i, T* out) {
  const BoxOf<T> one = box_at(in, i);
  const Curve<T> c = curve_at(values, i);
  put_box(out, i, kDecode ? decode(p, anchor, one, c) : encode(p, anchor, one, c));
}
template <bool kDecode, class T>
STRUCTOPS_HOST_DEVICE void put_gradient(const CodingParams& p, const T* grad, const T* in, const CentreSize<T>& anchor,
                                        const Curves<T>& values, int64_t i, T* grad_in, CentreSize<T>& to_anchor) {
  const BoxOf<T> one = box_at(in, i), g = box_at(grad, i);
  put_box(grad_in, i,
          kDecode ? decode_gradient(p, anchor, one, curve_at(values, i), g, to_anchor)
                  : encode_gradient(p, anchor, one, g, to_anchor));
}

}  // namespace structops
