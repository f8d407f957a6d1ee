// Where on the map each RoI lies: a table in device memory, written by one kernel and searched by those that own tiles.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace structops::cuda {

// Of each RoI: the pixels touched, and the image.
struct RoiBounds {
  int4* pixels;  // [K] first and last: (x0, x1, y0, y1)
  int* image;    // [K]; -1: touches nothing

  RoiBounds(void* memory, int64_t rois)
      : pixels(static_cast<int4*>(memory)), image(reinterpret_cast<int*>(pixels + rois)) {}
  static size_t bytes(int64_t rois) { return size_t(rois) * (sizeof(int4) + sizeof(int)); }
};

}  // namespace structops::cuda
