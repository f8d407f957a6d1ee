// Regions of interest as the CUDA kernels read them, and their bins as weighted pixels.
#pragma once
#include "common/cuda/device.cuh"

namespace structops::cuda {

struct Rois {
  const void* data;  // [K, 5] (batch index, x1, y1, x2, y2), dense
  bool is_double;    // else float

  __device__ __forceinline__ double at(int k, int i) const {
    const int64_t e = int64_t(k) * 5 + i;
    return is_double ? static_cast<const double*>(data)[e] : static_cast<double>(static_cast<const float*>(data)[e]);
  }
};

// The image of RoI k; -1 when the index is out of range or a number is not finite.
__device__ __forceinline__ int roi_image(const Rois& rois, int k, int64_t batch, double spatial_scale) {
  const double index = rois.at(k, 0);
  bool valid = index >= 0.0 && index < static_cast<double>(batch);
#pragma unroll
  for (int i = 1; i < 5; ++i) {
    const double pixels = rois.at(k, i) * spatial_scale;
    valid &= pixels - pixels == 0.0;
  }
  return valid ? static_cast<int>(index) : -1;
}

template <class A>
struct alignas(2 * sizeof(A)) Tap {
  int pixel;
  A weight;
};

struct TapRange {
  int first, count;
};

}  // namespace structops::cuda
