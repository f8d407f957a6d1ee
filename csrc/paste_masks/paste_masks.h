// Masks of detections pasted into their image: parameters and launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

// What becomes of a pixel.
enum class PasteKind : int64_t {
  values = 0,  // its number
  flags = 1,   // a byte, 1 where the number is above the threshold
  packed = 2,  // a bit, eight to a byte from the lowest on; rows begin with a byte
};

struct PasteParams {
  int64_t count, mask_height, mask_width;  // K, and the masks' own size
  int64_t height, width;                   // of the image
  int64_t padding;                         // zeros around each mask
  PasteKind kind;
  bool double_boxes;  // boxes are double, else float
  double threshold;   // of flags and bits; rounded to the masks' type
};

inline int64_t packed_bytes(int64_t width) { return (width + 7) / 8; }

namespace cpu {

// masks [K, mask_height, mask_width], boxes [K, 4] (x1, y1, x2, y2), dense. T is float or double.
// output: T, or bytes, [K, height, width], or [K, height, packed_bytes(width)]; every one is written.
template <class T>
void paste_masks(const PasteParams& p, const T* masks, const void* boxes, void* output, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
