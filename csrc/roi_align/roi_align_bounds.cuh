// Which pixels of its map a RoI touches: what the backward finds the RoIs of a tile by.
#pragma once
#include "common/cuda/device.cuh"
#include "common/cuda/roi_tiles.cuh"
#include "roi_align/roi_taps.cuh"

namespace structops::cuda {
namespace {

constexpr int kBoundsThreads = 256;

// Pixels of one axis that any sample can touch; empty when first > last.
__device__ __forceinline__ void touched(const RoiAxis& axis, int64_t pooled, int& first, int& last) {
  const double half = axis.samples > 0 ? 0.5 * axis.bin / static_cast<double>(axis.samples) : 0.0;
  const double a = axis.start + half, b = axis.start + static_cast<double>(pooled) * axis.bin - half;
  const double extent = static_cast<double>(axis.extent), slack = 1e-6;
  const double low = (a < b ? a : b) - slack, high = (a < b ? b : a) + slack;
  first = 0;
  last = -1;
  if (axis.samples == 0 || high < -1.0 || low > extent) return;
  first = static_cast<int>(low < 0.0 ? 0.0 : (low > extent - 1.0 ? extent - 1.0 : floor(low)));
  last = static_cast<int>(high < 0.0 ? 0.0 : (high > extent - 2.0 ? extent - 1.0 : floor(high) + 1.0));
}

// The image of RoI k, -1 where it touches nothing, and what it touches there.
__device__ __forceinline__ int roi_bounds(const RoiAlignParams& p, const Rois& rois, int k, int4& b) {
  b = {0, -1, 0, -1};
  const int image = roi_image(rois, k, p.batch, p.spatial_scale);
  if (image < 0) return -1;
  touched(roi_axis(rois, k, false, p), p.pooled_width, b.x, b.y);
  touched(roi_axis(rois, k, true, p), p.pooled_height, b.z, b.w);
  return b.x > b.y || b.z > b.w ? -1 : image;
}

}  // namespace
}  // namespace structops::cuda
