// mask_targets for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include "mask_targets/mask_targets_checks.h"

namespace structops {
namespace {

Tensor mask_targets(const Tensor& gt_masks, const Tensor& boxes, const Tensor& matched, int64_t rows, int64_t columns) {
  check_mask_targets(gt_masks, boxes, matched, rows, columns);
  const MaskTargetTensors t(gt_masks, boxes, matched, rows, columns);
  check_matched("mask_targets", t.matched, t.sizes.masks);
  t.dispatch([&]<class S, class T>(const S* masks, T) {
    cpu::mask_targets(t.sizes, masks, data<T>(t.boxes), data<int64_t>(t.matched), mutable_data<T>(t.targets),
                      parallel_for);
  });
  return t.targets;
}

Tensor polygon_mask_targets(const Tensor& points, const Tensor& rings, const Tensor& objects, const Tensor& boxes,
                            const Tensor& matched, int64_t rows, int64_t columns) {
  check_polygon_mask_targets(points, rings, objects, boxes, matched, rows, columns);
  const PolygonTargetTensors t(points, rings, objects, boxes, matched, rows, columns);
  check_offsets("rings", t.rings, t.polygons.point_count);
  check_offsets("objects", t.objects, t.polygons.ring_count);
  check_matched("polygon_mask_targets", t.matched, t.polygons.object_count);
  const auto run = [&]<class T>(T) {
    cpu::polygon_mask_targets(t.polygons, data<double>(t.boxes), data<int64_t>(t.matched), boxes.size(0),
                              static_cast<int>(rows), static_cast<int>(columns), mutable_data<T>(t.targets),
                              parallel_for);
  };
  t.type == ScalarType::Double ? run(double()) : run(float());
  return t.targets;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("mask_targets(Tensor gt_masks, Tensor boxes, Tensor matched, SymInt rows, SymInt columns) -> Tensor");
  m.def(
      "polygon_mask_targets(Tensor points, Tensor rings, Tensor objects, Tensor boxes, Tensor matched, SymInt rows, "
      "SymInt columns) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("mask_targets", TORCH_BOX(&mask_targets));
  m.impl("polygon_mask_targets", TORCH_BOX(&polygon_mask_targets));
}

}  // namespace structops
