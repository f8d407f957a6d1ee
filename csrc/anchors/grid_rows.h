// The rows that each op of this folder writes, one for every (level, y, x, cell) in that order, for CPU and GPU alike.
//
// A row is made in T (float or double) and stored as R, which can be a half; Round knows the conversions.
// No contraction: the build forbids it to host compilers (-ffp-contract=off) and to nvcc (-fmad=false).
#pragma once
#include <limits>

#include "common/anchors.h"

namespace structops {

constexpr int64_t kMaxGridLevels = 8;
constexpr int64_t kGeometry = 5;  // height, width, cells, stride y, stride x

// One feature map.
struct GridLevel {
  int64_t first;               // its first row of the output
  int64_t width, cells;        // of the map, in pixels; rows of a pixel
  int64_t stride_y, stride_x;  // image pixels per map pixel
  float divide_y, divide_x;    // default boxes: what a pixel's centre is divided by
  const void* data;            // what a pixel's rows are made of: [cells, 4] or [cells, 2], or null
};

struct GridLevels {
  GridLevel level[kMaxGridLevels];
  int64_t levels, rows;  // of the output
};

// The nearest float; past the last one infinity, which a plain conversion does not promise.
inline float nearest_float(double v) {
  using Limits = std::numeric_limits<float>;
  return v > Limits::max() ? Limits::infinity() : static_cast<float>(v);
}

// geometry [levels, kGeometry], divisors [levels, 2] (y, x) or null, data [levels].
inline GridLevels grid_levels(const int64_t* geometry, const double* divisors, const void* const* data,
                              int64_t levels) {
  GridLevels all{{}, levels, 0};
  for (int64_t l = 0; l < levels; ++l) {
    const int64_t* g = geometry + l * kGeometry;
    const float divide_y = divisors == nullptr ? 1 : nearest_float(divisors[2 * l]);
    const float divide_x = divisors == nullptr ? 1 : nearest_float(divisors[2 * l + 1]);
    all.level[l] = {all.rows, g[1], g[2], g[3], g[4], divide_y, divide_x, data[l]};
    all.rows += g[0] * g[1] * g[2];
  }
  return all;
}

// generate_anchors: data [cells, 4] of R, cell anchors about the origin.
template <class T, class R, class Round>
struct AnchorRow {
  using Stored = R;
  static constexpr int kColumns = 4;

  STRUCTOPS_HOST_DEVICE BoxOf<T> operator()(const GridLevel& l, int64_t y, int64_t x, int64_t cell) const {
    const R* c = static_cast<const R*>(l.data) + cell * 4;
    const BoxOf<T> base{Round::up(c[0]), Round::up(c[1]), Round::up(c[2]), Round::up(c[3])};
    return anchor_at(base, Round::to_stored(static_cast<T>(x * l.stride_x)),
                     Round::to_stored(static_cast<T>(y * l.stride_y)));
  }
};

// default_boxes: data [cells, 2] of T, width and height as shares of the image.
template <class T>
struct DefaultBoxRow {
  using Stored = T;
  static constexpr int kColumns = 4;
  T image_height, image_width;
  bool clip;

  // Centres are divided in float whatever T is, as torchvision does, and boxes scaled to pixels at the end.
  STRUCTOPS_HOST_DEVICE BoxOf<T> operator()(const GridLevel& l, int64_t y, int64_t x, int64_t cell) const {
    const T* pair = static_cast<const T*>(l.data) + cell * 2;
    const T width = clip ? clamp_keeping_nan(pair[0], T(0), T(1)) : pair[0];
    const T height = clip ? clamp_keeping_nan(pair[1], T(0), T(1)) : pair[1];
    const T cx = (static_cast<float>(x) + 0.5f) / l.divide_x, cy = (static_cast<float>(y) + 0.5f) / l.divide_y;
    const T half_width = T(0.5) * width, half_height = T(0.5) * height;
    return {(cx - half_width) * image_width, (cy - half_height) * image_height, (cx + half_width) * image_width,
            (cy + half_height) * image_height};
  }
};

// yolo_grid: x, y and, of four columns, the level's strides.
template <class T, class R, int kColumns_>
struct PointRow {
  using Stored = R;
  static constexpr int kColumns = kColumns_;
  T offset;

  STRUCTOPS_HOST_DEVICE BoxOf<T> operator()(const GridLevel& l, int64_t y, int64_t x, int64_t) const {
    const T stride_x = static_cast<T>(l.stride_x), stride_y = static_cast<T>(l.stride_y);
    return {(static_cast<T>(x) + offset) * stride_x, (static_cast<T>(y) + offset) * stride_y, stride_x, stride_y};
  }
};

}  // namespace structops
