// Anchors of a feature map from their index: the arithmetic that generating them, and decoding proposals without ever
// generating them, share on CPU and GPU alike.
//
// Anchors of a level lie in the order (y, x, cell): all cell anchors of a pixel, pixel after pixel along the rows, as
// torchvision's AnchorGenerator and the flattened outputs of its heads have them.
#pragma once
#include <cstdint>

#include "common/box_coding.h"

namespace structops {

// Where anchor i of a level is: pixel (y, x) of the map, and which of the pixel's cell anchors.
template <class I>
struct AnchorPlace {
  I y, x, cell;
};

// I: int where a level has fewer than 2^31 anchors (a GPU divides those 5 times faster), else int64_t.
// width, cells >= 1, the map's columns and the anchors per pixel.
template <class I>
STRUCTOPS_HOST_DEVICE AnchorPlace<I> anchor_place(I i, I width, I cells) {
  const I pixel = i / cells, y = pixel / width;
  return {y, pixel - y * width, i - pixel * cells};
}

// A cell anchor (x1, y1, x2, y2 about the origin) moved to a pixel. x = column * stride_x and y = row * stride_y, in
// image pixels, exact integers rounded once to the anchors' own type: torchvision multiplies integers, converts the
// product to the type of the cell anchors and adds. For half anchors T is float, x and y are rounded to the half
// first, and the sums afterwards.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> anchor_at(const BoxOf<T>& cell, T x, T y) {
  return {cell.x1 + x, cell.y1 + y, cell.x2 + x, cell.y2 + y};
}

// Anchor i of a level in float or double: cells [A] about the origin, strides in image pixels per map pixel.
template <class T, class I>
STRUCTOPS_HOST_DEVICE BoxOf<T> anchor(const BoxOf<T>* cells, I i, I width, I count, int64_t stride_y,
                                      int64_t stride_x) {
  const AnchorPlace<I> place = anchor_place(i, width, count);
  return anchor_at(cells[place.cell], static_cast<T>(place.x * stride_x), static_cast<T>(place.y * stride_y));
}

}  // namespace structops
