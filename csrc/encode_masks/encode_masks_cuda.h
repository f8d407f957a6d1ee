// Run-length encoding of masks on the GPU: launchers, free of torch. Nothing waits for the GPU; in between the caller
// adds up counts, and learns from the last of them how much memory the next launch needs.
#pragma once
#include <cuda_runtime_api.h>

#include "encode_masks/encode_masks.h"

namespace structops::cuda {

// Columns of all masks one after another, at least one a mask: changes [K * columns] is written, how many pixels of
// each differ from the one before, down the columns of a mask; the first is compared with 0.
inline int64_t encoded_columns(const EncodeParams& p) { return p.width > 0 ? p.width : 1; }
cudaError_t count_changes(const EncodeParams& p, const uint8_t* masks, int32_t* changes, cudaStream_t stream);

// until [K * columns]: the sum of changes up to each column, with it. ends [until.last + K] is written: where each run
// of each mask ends, in pixels of the mask.
cudaError_t write_ends(const EncodeParams& p, const uint8_t* masks, const int64_t* until, int32_t* ends,
                       cudaStream_t stream);

// characters [runs]: how many each run takes.
cudaError_t count_characters(const EncodeParams& p, const int64_t* until, const int32_t* ends, int64_t runs,
                             int32_t* characters, cudaStream_t stream);

// text_until [runs]: the sum of characters up to each run, with it. text and offsets [K + 1] are written.
cudaError_t write_text(const EncodeParams& p, const int64_t* until, const int32_t* ends, int64_t runs,
                       const int64_t* text_until, uint8_t* text, int64_t* offsets, cudaStream_t stream);

}  // namespace structops::cuda
