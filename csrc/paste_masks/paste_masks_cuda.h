// Pasting masks on the GPU: launcher, free of torch. Arguments are those of paste_masks/paste_masks.h; nothing waits
// for the GPU.
#pragma once
#include <cuda_runtime_api.h>

#include "paste_masks/paste_masks.h"

namespace structops::cuda {

// output must be aligned to 16 bytes, as torch's memory is.
template <class T>
cudaError_t paste_masks(const PasteParams& p, const T* masks, const void* boxes, void* output, cudaStream_t stream);

}  // namespace structops::cuda
