// Run-length encoding of masks in COCO's compressed form: parameters and launchers, free of torch.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "common/cpu/parallel.h"

namespace structops {

struct EncodeParams {
  int64_t count, height, width;  // K masks
  int64_t row_bytes;             // of a mask in memory: width, or those of its bits, the lowest of a byte first
  bool packed;
};

namespace cpu {

// masks [K, height, row_bytes], dense; a byte that is not 0 is a pixel of the object. One string a mask.
void encode_masks(const EncodeParams& p, const uint8_t* masks, std::vector<std::string>& strings,
                  ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
