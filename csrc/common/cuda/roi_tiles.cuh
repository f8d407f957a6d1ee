// Which RoIs reach into a tile of the map, for backward kernels that own tiles: one kernel writes where on the map each
// RoI lies, those that own tiles search it.
#pragma once
#include "common/cuda/device.cuh"

namespace structops::cuda {

// Of each RoI: the pixels touched, and the image. A table in device memory.
struct RoiBounds {
  int4* pixels;  // [K] first and last: (x0, x1, y0, y1)
  int* image;    // [K]; -1: touches nothing

  RoiBounds(void* memory, int64_t rois)
      : pixels(static_cast<int4*>(memory)), image(reinterpret_cast<int*>(pixels + rois)) {}
  static size_t bytes(int64_t rois) { return size_t(rois) * (sizeof(int4) + sizeof(int)); }
};

// What a block knows of its tile.
struct Tile {
  int image, y0, x0, rows, columns;
};

constexpr int kRoiScan = 4;  // RoIs that a thread looks at in one step of the walk

// The RoIs of [begin, begin + kThreads * kRoiScan) that meet the tile, in order, into list; returns how many. Called by
// the whole block of kThreads; synchronises before and after. warp_counts: [kThreads / 32].
template <int kThreads>
__device__ __forceinline__ int collect_rois(const int4* __restrict__ pixels, const int* __restrict__ image,
                                            int64_t rois, const Tile& t, int64_t begin, int* list, int* warp_counts) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned hits[kRoiScan];
  int count = 0;
#pragma unroll
  for (int j = 0; j < kRoiScan; ++j) {
    const int64_t k = begin + warp * 32 * kRoiScan + j * 32 + lane;
    bool hit = false;
    if (k < rois && image[k] == t.image) {
      const int4 b = pixels[k];
      hit = b.x < t.x0 + t.columns && b.y >= t.x0 && b.z < t.y0 + t.rows && b.w >= t.y0;
    }
    hits[j] = __ballot_sync(kFullWarp, hit);
    count += __popc(hits[j]);
  }
  if (lane == 0) warp_counts[warp] = count;
  __syncthreads();
  int at = 0, total = 0;
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) {
    at += w < warp ? warp_counts[w] : 0;
    total += warp_counts[w];
  }
#pragma unroll
  for (int j = 0; j < kRoiScan; ++j) {
    if (hits[j] >> lane & 1)
      list[at + __popc(hits[j] & ((1u << lane) - 1))] = static_cast<int>(begin + warp * 32 * kRoiScan + j * 32 + lane);
    at += __popc(hits[j]);
  }
  __syncthreads();
  return total;
}

}  // namespace structops::cuda
