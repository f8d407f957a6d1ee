// What the CPU and the CUDA binding of paste_masks share: checks, parameters, and the result.
#pragma once
#include <limits>
#include <optional>

#include "common/tensor.h"
#include "paste_masks/paste_masks.h"

namespace structops {

inline PasteParams check_paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width,
                                     std::optional<double> threshold, bool packed, int64_t padding) {
  constexpr const char* op = "paste_masks";
  STRUCTOPS_CHECK(masks.dim() == 3, op, ": masks must be [K, h, w], got ", masks.dim(), " dimensions");
  check_floating(op, "masks", masks);
  STRUCTOPS_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, op, ": boxes must be [K, 4] (x1, y1, x2, y2), got ",
                  boxes.dim(), " dimensions", boxes.dim() == 2 ? " with a wrong second size" : "");
  check_floating(op, "boxes", boxes);
  STRUCTOPS_CHECK(boxes.size(0) == masks.size(0), op, ": boxes must have one entry a mask, got ", boxes.size(0),
                  " for ", masks.size(0), " masks");
  STRUCTOPS_CHECK(boxes.device() == masks.device(), op, ": boxes must be on the same device as masks");
  STRUCTOPS_CHECK(masks.size(1) > 0 && masks.size(2) > 0, op, ": masks must have at least one row and column");
  STRUCTOPS_CHECK(height >= 0 && width >= 0, op, ": image_size must be 0 or more, got ", height, " and ", width);
  STRUCTOPS_CHECK(padding >= 0, op, ": padding must be 0 or more, got ", padding);
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 2;
  STRUCTOPS_CHECK(masks.size(1) < kMost && masks.size(2) < kMost && padding < kMost / 2, op,
                  ": a mask with its padding must be smaller than 2^31");
  STRUCTOPS_CHECK(threshold || !packed, op, ": packed results need a threshold");
  const PasteKind kind = !threshold ? PasteKind::values : packed ? PasteKind::packed : PasteKind::flags;
  return {masks.size(0),
          masks.size(1),
          masks.size(2),
          height,
          width,
          padding,
          kind,
          boxes.scalar_type() == ScalarType::Double,
          threshold.value_or(0)};
}

inline Tensor empty_pasted(const PasteParams& p, const Tensor& masks) {
  switch (p.kind) {
    case PasteKind::values:
      return empty({p.count, 1, p.height, p.width}, wide_type(masks), masks);
    case PasteKind::flags:
      return empty({p.count, p.height, p.width}, ScalarType::Bool, masks);
    default:
      return empty({p.count, p.height, packed_bytes(p.width)}, ScalarType::Byte, masks);
  }
}

}  // namespace structops
