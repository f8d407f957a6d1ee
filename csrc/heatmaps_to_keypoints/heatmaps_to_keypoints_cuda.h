// Keypoints from heatmaps on the GPU: the launcher, free of torch.
#pragma once
#include <cuda_runtime_api.h>

#include "heatmaps_to_keypoints/heatmaps_to_keypoints.h"

namespace structops::cuda {

// S: how maps are stored; T: float, or double for double maps.
template <class S, class T>
cudaError_t heatmaps_to_keypoints(const HeatmapSizes& sizes, const S* maps, const T* rois, T* keypoints, T* scores,
                                  cudaStream_t stream);

}  // namespace structops::cuda
