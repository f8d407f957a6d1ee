// Anchors, default boxes and grid points on the CPU: launchers, free of torch.
#pragma once
#include "anchors/grid_rows.h"
#include "common/cpu/parallel.h"

namespace structops::cpu {

// out [rows, 4]: the cell anchors [cells, 4] of T of each level at each of its pixels.
template <class T>
void generate_anchors(const GridLevels& levels, T* out, ParallelFor parallel_for);

// out [rows, 4] of T, float or double, from pairs [cells, 2] of T.
template <class T>
void default_boxes(const GridLevels& levels, int64_t image_height, int64_t image_width, bool clip, T* out,
                   ParallelFor parallel_for);

// out [rows, 4] (x, y, stride x, stride y), or [rows, 2] without strides.
template <class T>
void yolo_grid(const GridLevels& levels, double offset, bool with_stride, T* out, ParallelFor parallel_for);

}  // namespace structops::cpu
