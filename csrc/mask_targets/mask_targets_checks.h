// What both bindings of mask_targets check and allocate. In Python: structops/ops/mask_targets.py.
#pragma once
#include <utility>

#include "common/rois.h"
#include "mask_targets/mask_targets.h"

namespace structops {

inline void check_target_boxes(const char* op, const Tensor& boxes, const Tensor& matched, int64_t rows,
                               int64_t columns) {
  STRUCTOPS_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, op, ": boxes must be [K, 4] (x1, y1, x2, y2)");
  check_floating(op, "boxes", boxes);
  STRUCTOPS_CHECK(matched.dim() == 1 && matched.size(0) == boxes.size(0), op,
                  ": matched must be [K], an index for each of the ", boxes.size(0), " boxes");
  STRUCTOPS_CHECK(is_integer(matched.scalar_type()), op, ": matched must be an integer tensor, got ",
                  torch::headeronly::toString(matched.scalar_type()));
  STRUCTOPS_CHECK(matched.device() == boxes.device(), op, ": matched must be on the same device as boxes");
  STRUCTOPS_CHECK(rows > 0 && columns > 0 && rows <= kMaxPooled && columns <= kMaxPooled, op, ": size must be 1 to ",
                  kMaxPooled, ", got (", rows, ", ", columns, ")");
}

inline void check_mask_targets(const Tensor& gt_masks, const Tensor& boxes, const Tensor& matched, int64_t rows,
                               int64_t columns) {
  constexpr const char* op = "mask_targets";
  STRUCTOPS_CHECK(gt_masks.dim() == 3, op, ": gt_masks must be [G, H, W] (3 dimensions), got ", gt_masks.dim(),
                  " dimensions");
  const ScalarType type = gt_masks.scalar_type();
  STRUCTOPS_CHECK(is_floating(type) || type == ScalarType::Bool || type == ScalarType::Byte, op,
                  ": gt_masks must be bool, uint8 or floating, got ", torch::headeronly::toString(type));
  check_target_boxes(op, boxes, matched, rows, columns);
  STRUCTOPS_CHECK(boxes.device() == gt_masks.device(), op, ": boxes must be on the same device as gt_masks");
}

// CPU: matched [K] of int64, as the kernel takes it, has indices in [0, count).
inline void check_matched(const char* op, const Tensor& matched, int64_t count) {
  const auto* index = data<int64_t>(matched);
  for (int64_t k = 0; k < matched.size(0); ++k)
    STRUCTOPS_CHECK(index[k] >= 0 && index[k] < count, op, ": matched[", k, "] is ", index[k], ", but must be in [0, ",
                    count, ")");
}

// Arguments as the kernels take them, and the output.
struct MaskTargetTensors {
  ScalarType type, stored;  // of boxes and targets; of masks: Byte (or Bool, the same), Float or Double
  MaskTargetSizes sizes;
  Tensor masks, boxes, matched;  // [G, H, W], [K, 4], [K]
  Tensor targets;                // [K, rows, columns]

  MaskTargetTensors(const Tensor& gt_masks, const Tensor& boxes_, const Tensor& matched_, int64_t rows, int64_t columns)
      : type(wide_type(gt_masks, boxes_)),
        stored(is_floating(gt_masks.scalar_type()) ? type : gt_masks.scalar_type()),
        sizes{gt_masks.size(0), gt_masks.size(1),       gt_masks.size(2),
              boxes_.size(0),   static_cast<int>(rows), static_cast<int>(columns)},
        masks(dense(gt_masks, stored)),
        boxes(dense(boxes_, type)),
        matched(dense(matched_, ScalarType::Long)),
        targets(empty({sizes.boxes, rows, columns}, type, boxes_)) {}

  // Calls run(masks, T()) with their pointer and the type that is computed in.
  template <class Run>
  void dispatch(const Run& run) const {
    const bool bytes = !is_floating(stored);
    if (type == ScalarType::Double)
      bytes ? run(data<uint8_t>(masks), double()) : run(data<double>(masks), double());
    else
      bytes ? run(data<uint8_t>(masks), float()) : run(data<float>(masks), float());
  }
};

inline void check_polygon_mask_targets(const Tensor& points, const Tensor& rings, const Tensor& objects,
                                       const Tensor& boxes, const Tensor& matched, int64_t rows, int64_t columns) {
  constexpr const char* op = "polygon_mask_targets";
  STRUCTOPS_CHECK(points.dim() == 2 && points.size(1) == 2, op, ": points must be [V, 2] (x, y)");
  check_floating(op, "points", points);
  for (const auto& [name, offsets] : {std::pair{"rings", &rings}, std::pair{"objects", &objects}}) {
    STRUCTOPS_CHECK(offsets->dim() == 1 && offsets->size(0) > 0, op, ": ", name, " must be offsets, at least one");
    STRUCTOPS_CHECK(is_integer(offsets->scalar_type()), op, ": ", name, " must be an integer tensor, got ",
                    torch::headeronly::toString(offsets->scalar_type()));
    STRUCTOPS_CHECK(offsets->device() == points.device(), op, ": ", name, " must be on the same device as points");
  }
  check_target_boxes(op, boxes, matched, rows, columns);
  STRUCTOPS_CHECK(boxes.device() == points.device(), op, ": boxes must be on the same device as points");
}

// CPU: offsets of int64 rise from 0 or more to no more than count.
inline void check_offsets(const char* name, const Tensor& offsets, int64_t count) {
  const auto* at = data<int64_t>(offsets);
  for (int64_t i = 0; i < offsets.size(0); ++i)
    STRUCTOPS_CHECK(at[i] >= (i == 0 ? 0 : at[i - 1]) && at[i] <= count, "polygon_mask_targets: ", name,
                    " must rise from 0 to no more than ", count, ", got ", at[i], " at ", i);
}

// Arguments as the kernels take them, and the output.
struct PolygonTargetTensors {
  ScalarType type;                // of targets
  Tensor points, rings, objects;  // [V, 2] double, [R + 1], [G + 1]
  Tensor boxes, matched;          // [K, 4] double, [K]
  Tensor targets;                 // [K, rows, columns]
  Polygons polygons;

  PolygonTargetTensors(const Tensor& points_, const Tensor& rings_, const Tensor& objects_, const Tensor& boxes_,
                       const Tensor& matched_, int64_t rows, int64_t columns)
      : type(wide_type(points_, boxes_)),
        points(dense(points_, ScalarType::Double)),
        rings(dense(rings_, ScalarType::Long)),
        objects(dense(objects_, ScalarType::Long)),
        boxes(dense(boxes_, ScalarType::Double)),
        matched(dense(matched_, ScalarType::Long)),
        targets(empty({boxes_.size(0), rows, columns}, type, boxes_)),
        polygons{data<double>(points), data<int64_t>(rings), data<int64_t>(objects),
                 points.size(0),       rings.size(0) - 1,    objects.size(0) - 1} {}
};

}  // namespace structops
