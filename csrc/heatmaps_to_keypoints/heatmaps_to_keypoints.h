// Keypoints from heatmaps: what the CPU and the GPU share, and the CPU's launcher; free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

// The longest side that a map is resized to: a RoI of 1e9 pixels would take for ever.
constexpr int kMaxResized = 8192;
constexpr int kMaxHeatmap = 4096;  // the longest side of a map

// maps [K, P, H, W], rois [K, 4] (x1, y1, x2, y2) -> keypoints [K, P, 3] (x, y, 1), scores [K, P].
struct HeatmapSizes {
  int64_t rois, points;
  int height, width;
};

namespace cpu {

// S: how maps are stored; T: float, or double for double maps.
template <class S, class T>
void heatmaps_to_keypoints(const HeatmapSizes& sizes, const S* maps, const T* rois, T* keypoints, T* scores,
                           ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
