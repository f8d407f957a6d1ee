// Where a box lies in the image and which numbers of a mask a pixel lies between, on CPU and GPU alike.
//
// Every operation rounds once, in the order of torchvision's paste_masks_in_image and of torch's bilinear interpolation
// (align_corners=False) as compiled for a CPU that has fused multiply-adds: where that fuses, so does this.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "paste_masks/paste_masks.h"

namespace structops {

// A box's pixels along one axis, and those of them that the image has.
struct PasteRange {
  int64_t first, length;  // the first pixel, which may be outside the image, and how many
  int64_t begin, end;     // within the image; empty where begin >= end
};

// Corners of a box in whole pixels. 2^62: differences stay within 64 bits.
template <class B>
STRUCTOPS_HOST_DEVICE bool to_pixel(B v, int64_t& pixel) {
  constexpr B kLimit = B(int64_t{1} << 62);
  const bool number = v > -kLimit && v < kLimit;  // and no NaN
  pixel = number ? static_cast<int64_t>(v) : 0;
  return number;
}

// low and high of a box grown by `scale` around its centre.
template <class B>
STRUCTOPS_HOST_DEVICE PasteRange paste_range(B low, B high, B scale, int64_t image) {
  const B half = (high - low) * B(0.5) * scale, centre = (high + low) * B(0.5);
  int64_t first, last;
  const bool known = to_pixel(centre - half, first) & to_pixel(centre + half, last);
  const int64_t length = last - first + 1 > 1 ? last - first + 1 : 1;
  const int64_t begin = first > 0 ? first : 0, end = last + 1 < image ? last + 1 : image;
  return {first, length, begin, known && end > begin ? end : begin};
}

struct PasteBox {
  PasteRange x, y;
  // Torch has two kernels for a single channel, which round differently: for small maps one that adds up four products.
  STRUCTOPS_HOST_DEVICE bool by_rows() const { return x.length > 128 || y.length > 128 || x.length + y.length > 128; }
  STRUCTOPS_HOST_DEVICE bool empty() const { return x.begin >= x.end || y.begin >= y.end; }
};

template <class B>
STRUCTOPS_HOST_DEVICE PasteBox paste_box(const PasteParams& p, const B* box) {
  // In double, as Python has it, then in the boxes' type.
  const B scale = B(double(p.mask_width + 2 * p.padding) / double(p.mask_width));
  return {paste_range(box[0], box[2], scale, p.width), paste_range(box[1], box[3], scale, p.height)};
}
STRUCTOPS_HOST_DEVICE PasteBox paste_box(const PasteParams& p, const void* boxes, int64_t k) {
  return p.double_boxes ? paste_box(p, static_cast<const double*>(boxes) + 4 * k)
                        : paste_box(p, static_cast<const float*>(boxes) + 4 * k);
}

// The two numbers of a padded mask beside a pixel, along one axis, and their weights.
template <class T>
struct PasteTap {
  int32_t low, high;
  T low_weight, high_weight;
};

// Pixel i of `to`, from `from` numbers, fewer than 2^31.
template <class T>
STRUCTOPS_HOST_DEVICE PasteTap<T> paste_tap(int64_t i, int64_t from, int64_t to) {
  if (from == to) return {static_cast<int32_t>(i), static_cast<int32_t>(i), T(1), T(0)};
  T at = std::fma(T(from) / T(to), T(i) + T(0.5), T(-0.5));
  at = at < T(0) ? T(0) : at;
  // Torch's floor is a float's, of a double too: what is a hair below a whole number counts as that.
  const int64_t floor = static_cast<int64_t>(static_cast<float>(at));
  const int32_t low = static_cast<int32_t>(floor < from - 1 ? floor : from - 1);
  T weight = at - T(low);
  weight = weight < T(0) ? T(0) : weight > T(1) ? T(1) : weight;
  return {low, low < from - 1 ? low + 1 : low, T(1) - weight, weight};
}

}  // namespace structops
