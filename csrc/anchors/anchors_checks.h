// Argument checks that the CPU and CUDA bindings of anchors, default boxes and grid points share, and the levels that
// they make of the arguments. The same in Python is in structops/ops/anchors.py.
#pragma once
#include <cmath>
#include <vector>

#include "anchors/grid_rows.h"
#include "common/tensor.h"

namespace structops {

// Grids below 2^24 rows and columns, of which float holds every number, and strides that fit an int: no product below
// overflows.
constexpr int64_t kMaxGridSide = int64_t(1) << 24, kMaxGridStride = (int64_t(1) << 31) - 1;

inline void check_grids(const char* op, size_t levels, const std::vector<int64_t>& grid_sizes) {
  STRUCTOPS_CHECK(levels >= 1 && levels <= size_t(kMaxGridLevels), op, ": 1 to ", kMaxGridLevels,
                  " levels are supported, got ", levels);
  STRUCTOPS_CHECK(grid_sizes.size() == 2 * levels, op, ": grid_sizes must have one (height, width) a level, got ",
                  grid_sizes.size() / 2, " for ", levels, " levels");
  for (const int64_t side : grid_sizes)
    STRUCTOPS_CHECK(side >= 0 && side < kMaxGridSide, op, ": grid_sizes must be 0 or more and below 2^24, got ", side);
}

inline void check_strides(const char* op, size_t levels, const std::vector<int64_t>& strides) {
  STRUCTOPS_CHECK(strides.size() == 2 * levels, op, ": strides must have one (y, x) a level, got ", strides.size() / 2,
                  " for ", levels, " levels");
  for (const int64_t stride : strides)
    STRUCTOPS_CHECK(stride >= 0 && stride <= kMaxGridStride, op, ": strides must be 0 or more and below 2^31, got ",
                    stride);
}

// One [A, columns] a level, floating, of one type and device.
inline void check_cells(const char* op, const char* name, const std::vector<Tensor>& cells, int64_t columns) {
  for (size_t l = 0; l < cells.size(); ++l) {
    const Tensor& c = cells[l];
    STRUCTOPS_CHECK(c.dim() == 2 && c.size(1) == columns, op, ": ", name, "[", l, "] must be [A, ", columns, "], got ",
                    shape_text(c));
    STRUCTOPS_CHECK(is_floating(c.scalar_type()), op, ": ", name, "[", l,
                    "] must be float16, bfloat16, float32 or float64, got ",
                    torch::headeronly::toString(c.scalar_type()));
    STRUCTOPS_CHECK(c.scalar_type() == cells[0].scalar_type(), op, ": ", name, " must be of one type");
    STRUCTOPS_CHECK(c.device() == cells[0].device(), op, ": ", name, " must be on one device");
  }
}

inline void check_like(const char* op, const Tensor& like, double offset) {
  check_floating(op, "like", like);
  STRUCTOPS_CHECK(std::abs(offset) < double(kMaxGridSide), op, ": offset must be finite and below 2^24, got ", offset);
}

inline void check_default_boxes(const std::vector<Tensor>& pairs, const std::vector<int64_t>& grid_sizes,
                                const std::vector<int64_t>& image_size, const std::vector<double>& steps) {
  constexpr const char* op = "default_boxes";
  check_grids(op, pairs.size(), grid_sizes);
  check_cells(op, "wh_pairs", pairs, 2);
  STRUCTOPS_CHECK(image_size.size() == 2 && image_size[0] >= 0 && image_size[1] >= 0, op,
                  ": image_size must be (height, width), 0 or more");
  STRUCTOPS_CHECK(steps.empty() || steps.size() == pairs.size(), op, ": steps must have one number a level, got ",
                  steps.size(), " for ", pairs.size(), " levels");
  for (const double step : steps)
    STRUCTOPS_CHECK(step > 0 && step - step == 0, op, ": steps must be positive and finite, got ", step);
}

// The levels as the kernels take them, and what they point to.
struct Grids {
  std::vector<Tensor> cells;  // dense
  std::vector<int64_t> geometry;
  std::vector<double> divisors;

  // type: of the cells.
  Grids(const std::vector<Tensor>& given, ScalarType type, const std::vector<int64_t>& grid_sizes,
        const std::vector<int64_t>& strides) {
    for (size_t l = 0; 2 * l < grid_sizes.size(); ++l) {
      if (!given.empty()) {
        const Tensor& c = given[l];
        const Tensor converted = c.scalar_type() == type ? c : torch::stable::to(c, type);
        cells.push_back(converted.is_contiguous() ? converted : torch::stable::contiguous(converted));
      }
      const auto stride = [&](size_t axis) { return strides.empty() ? int64_t(1) : strides[2 * l + axis]; };
      geometry.insert(geometry.end(), {grid_sizes[2 * l], grid_sizes[2 * l + 1], given.empty() ? 1 : given[l].size(0),
                                       stride(0), stride(1)});
    }
  }

  // What centres are divided by: the image's sides in steps, or the grid's.
  void set_divisors(const std::vector<int64_t>& image_size, const std::vector<double>& steps) {
    for (size_t l = 0; l < cells.size(); ++l)
      for (size_t axis = 0; axis < 2; ++axis)
        divisors.push_back(steps.empty() ? static_cast<double>(geometry[l * kGeometry + axis])
                                         : static_cast<double>(image_size[axis]) / steps[l]);
  }

  int64_t size() const { return static_cast<int64_t>(geometry.size()) / kGeometry; }
  int64_t rows() const {
    int64_t sum = 0;
    for (int64_t l = 0; l < size(); ++l)
      sum += geometry[l * kGeometry] * geometry[l * kGeometry + 1] * geometry[l * kGeometry + 2];
    return sum;
  }
  const void* data(int64_t level) const {
    return level < static_cast<int64_t>(cells.size()) ? cells[level].const_data_ptr() : nullptr;
  }
  const double* divisors_or_null() const { return divisors.empty() ? nullptr : divisors.data(); }
};

}  // namespace structops
