// What the CPU and the CUDA binding of encode_masks share.
#pragma once
#include <limits>
#include <optional>

#include "common/tensor.h"
#include "encode_masks/encode_masks.h"

namespace structops {

inline EncodeParams check_encode_masks(const Tensor& masks, std::optional<int64_t> width) {
  constexpr const char* op = "encode_masks";
  STRUCTOPS_CHECK(masks.dim() == 3, op, ": masks must be [K, H, W], got ", masks.dim(), " dimensions");
  const ScalarType type = masks.scalar_type();
  if (width) {
    STRUCTOPS_CHECK(type == ScalarType::Byte, op,
                    ": masks must be uint8, eight pixels to a byte, where a width is "
                    "given, got ",
                    torch::headeronly::toString(type));
    STRUCTOPS_CHECK(*width >= 0 && masks.size(2) == (*width + 7) / 8, op, ": width must belong to masks of ",
                    masks.size(2), " bytes a row, got ", *width);
  } else {
    STRUCTOPS_CHECK(type == ScalarType::Bool || type == ScalarType::Byte, op, ": masks must be bool or uint8, got ",
                    torch::headeronly::toString(type));
  }
  const EncodeParams p{masks.size(0), masks.size(1), width.value_or(masks.size(2)), masks.size(2), width.has_value()};
  STRUCTOPS_CHECK(p.height == 0 || p.width < (std::numeric_limits<int32_t>::max() - 1) / p.height, op,
                  ": masks must have fewer than 2^31 pixels, got ", p.height, " x ", p.width);
  return p;
}

}  // namespace structops
