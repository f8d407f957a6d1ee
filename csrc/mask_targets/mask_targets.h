// Targets of a mask head: what CPU and GPU share, and the CPU's launchers; free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"
#include "common/roi_axis.h"

namespace structops {

// masks [G, H, W], boxes [K, 4] (x1, y1, x2, y2), matched [K] -> targets [K, rows, columns].
struct MaskTargetSizes {
  int64_t masks, height, width, boxes;
  int rows, columns;
};

// Bins of a box along an axis, as torchvision's RoI Align with aligned=False and an adaptive number of samples has
// them.
STRUCTOPS_HOST_DEVICE RoiAxis mask_axis(double low, double high, int bins, int64_t extent) {
  return RoiAxis(low, high, 1.0, bins, 0, false, extent);
}

// Objects as polygons: the rings of object g are objects[g] to objects[g + 1], the points of ring r rings[r] to
// rings[r + 1]; a ring's last point is joined to its first.
struct Polygons {
  const double* points;    // [V, 2] (x, y)
  const int64_t* rings;    // [R + 1]
  const int64_t* objects;  // [G + 1]
  int64_t point_count, ring_count, object_count;

  // Where a ring or an object begins; whatever is written there, inside of the next array.
  STRUCTOPS_HOST_DEVICE int64_t ring(int64_t r) const { return within(rings[r], point_count); }
  STRUCTOPS_HOST_DEVICE int64_t object(int64_t g) const { return within(objects[g], ring_count); }

 private:
  STRUCTOPS_HOST_DEVICE static int64_t within(int64_t at, int64_t count) {
    return at < 0 ? 0 : (at < count ? at : count);
  }
};

// Centres of a target's pixels along an axis. A side of less than a tenth of a pixel counts as one, as in detectron2,
// unless it is infinite.
struct TargetAxis {
  double start, step;

  STRUCTOPS_HOST_DEVICE TargetAxis(double low, double high, int bins)
      : start(low), step((high - low < 0.1 && high - high == 0 ? 0.1 : high - low) / bins) {}
  STRUCTOPS_HOST_DEVICE bool finite() const { return (start - start) + (step - step) == 0.0; }
  STRUCTOPS_HOST_DEVICE double centre(int bin) const { return start + (bin + 0.5) * step; }
};

// Where the edge from a to b meets the line y, if it does: a point on that line and left of there is left of the edge.
STRUCTOPS_HOST_DEVICE bool edge_crosses(const double* a, const double* b, double y) {
  return (a[1] <= y) != (b[1] <= y);
}
STRUCTOPS_HOST_DEVICE double edge_crossing(const double* a, const double* b, double y) {
  return a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1]);
}

namespace cpu {

// boxes [K, 4] in double; targets float or double.
template <class T>
void polygon_mask_targets(const Polygons& polygons, const double* boxes, const int64_t* matched, int64_t count,
                          int rows, int columns, T* targets, ParallelFor parallel_for);

// S: how masks are stored (uint8_t, float or double); T: float or double, of boxes and targets.
template <class S, class T>
void mask_targets(const MaskTargetSizes& sizes, const S* masks, const T* boxes, const int64_t* matched, T* targets,
                  ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
