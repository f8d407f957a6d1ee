// Targets of a mask head on the GPU: the launcher, free of torch.
#pragma once
#include <cuda_runtime_api.h>

#include "mask_targets/mask_targets.h"

namespace structops::cuda {

// S: how masks are stored (uint8_t, float or double); T: float or double, of boxes and targets. A ground truth that
// does not exist gives NaN.
template <class S, class T>
cudaError_t mask_targets(const MaskTargetSizes& sizes, const S* masks, const T* boxes, const int64_t* matched,
                         T* targets, cudaStream_t stream);

// boxes [K, 4] in double; targets float or double. An object that does not exist gives NaN.
template <class T>
cudaError_t polygon_mask_targets(const Polygons& polygons, const double* boxes, const int64_t* matched, int64_t count,
                                 int rows, int columns, T* targets, cudaStream_t stream);

}  // namespace structops::cuda
