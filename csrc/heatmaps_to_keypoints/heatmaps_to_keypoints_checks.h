// What both bindings of heatmaps_to_keypoints check and allocate. In Python: structops/ops/heatmaps_to_keypoints.py.
#pragma once
#include "common/tensor.h"
#include "heatmaps_to_keypoints/heatmaps_to_keypoints.h"

namespace structops {

inline void check_heatmaps_to_keypoints(const Tensor& maps, const Tensor& rois) {
  constexpr const char* op = "heatmaps_to_keypoints";
  STRUCTOPS_CHECK(maps.dim() == 4, op, ": maps must be [K, P, H, W] (4 dimensions), got ", maps.dim(), " dimensions");
  check_floating(op, "maps", maps);
  STRUCTOPS_CHECK(rois.dim() == 2 && rois.size(0) == maps.size(0) && rois.size(1) == 4, op,
                  ": rois must be [K, 4] (x1, y1, x2, y2), one for each of the ", maps.size(0), " maps");
  check_floating(op, "rois", rois);
  STRUCTOPS_CHECK(rois.device() == maps.device(), op, ": rois must be on the same device as maps");
  STRUCTOPS_CHECK(maps.size(2) > 0 && maps.size(3) > 0 && maps.size(2) <= kMaxHeatmap && maps.size(3) <= kMaxHeatmap,
                  op, ": maps must be 1 to ", kMaxHeatmap, " pixels high and wide, got ", maps.size(2), " x ",
                  maps.size(3));
}

// Arguments as the kernels take them, and the outputs.
struct KeypointTensors {
  ScalarType type;  // that is computed in
  HeatmapSizes sizes;
  Tensor maps, rois;         // [K, P, H, W], [K, 4]
  Tensor keypoints, scores;  // [K, P, 3], [K, P]

  KeypointTensors(const Tensor& given, const Tensor& boxes)
      : type(wide_type(given, boxes)),
        sizes{given.size(0), given.size(1), static_cast<int>(given.size(2)), static_cast<int>(given.size(3))},
        maps(dense(given, type == ScalarType::Double ? type : given.scalar_type())),
        rois(dense(boxes, type)),
        keypoints(empty({sizes.rois, sizes.points, 3}, type, given)),
        scores(empty({sizes.rois, sizes.points}, type, given)) {}
};

}  // namespace structops
