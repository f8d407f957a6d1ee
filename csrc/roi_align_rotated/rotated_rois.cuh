// What both kernels of rotated boxes read of a RoI.
#pragma once
#include "common/cuda/roi_tiles.cuh"
#include "roi_align_rotated/rotated_roi.h"

namespace structops::cuda {

// What is computed once per RoI, in device memory: sines and all other decisions, so that no kernel that moves data
// has to.
struct RotatedRois {
  RoiBounds bounds;  // [K]
  RotatedRoi* roi;   // [K]
  RotatedRois(void* workspace, int64_t rois)
      : bounds(workspace, rois),
        roi(reinterpret_cast<RotatedRoi*>(static_cast<char*>(workspace) + bounds_bytes(rois))) {}
  static size_t bytes(int64_t rois) { return bounds_bytes(rois) + size_t(rois) * sizeof(RotatedRoi); }

 private:
  static size_t bounds_bytes(int64_t rois) { return (RoiBounds::bytes(rois) + 7) / 8 * 8; }
};

// rois [K, 6] (batch index, centre x, centre y, width, height, degrees), dense, float or double.
cudaError_t roi_align_rotated_prepare(const RoiAlignParams& p, bool clockwise, const void* rois, bool rois_are_double,
                                      const RotatedRois& prepared, cudaStream_t stream);

}  // namespace structops::cuda
