// Targets of a mask head on the GPU: a thread for each of their pixels.
//
// Every thread walks its bin's samples by itself, in double: some 80 steps of a box of 200 pixels, for a few hundred
// thousand pixels a training step. A table in shared memory would save most of that on GPUs that are slow at double.
#include <limits>

#include "common/cuda/device.cuh"
#include "mask_targets/mask_targets_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128;

// A block for each box.
template <class S, class T>
__global__ void __launch_bounds__(kThreads, 4)
    mask_targets_kernel(const MaskTargetSizes sizes, const S* __restrict__ masks, const T* __restrict__ boxes,
                        const int64_t* __restrict__ matched, T* __restrict__ targets) {
  const int64_t k = blockIdx.x;
  const int count = sizes.rows * sizes.columns;
  const T* box = boxes + 4 * k;
  const int64_t index = matched[k];
  const RoiAxis across = mask_axis(box[0], box[2], sizes.columns, sizes.width);
  const RoiAxis down = mask_axis(box[1], box[3], sizes.rows, sizes.height);
  const bool valid = across.finite && down.finite && index >= 0 && index < sizes.masks;
  const S* mask = masks + (valid ? index : 0) * sizes.height * sizes.width;
  for (int i = int(threadIdx.x); i < count; i += kThreads) {
    const int p = i / sizes.columns, q = i % sizes.columns;
    T value = valid ? T(0) : std::numeric_limits<T>::quiet_NaN();
    if (valid) {
      int64_t first_row, last_row, first_column, last_column;
      down.inside_range(p, first_row, last_row);
      across.inside_range(q, first_column, last_column);
      for_each_tap(down, p, first_row, last_row, [&](int y, double row_weight) {
        if (T(row_weight) == T(0)) return;  // or an infinite pixel would become NaN
        const S* row = mask + y * sizes.width;
        T sum = 0;
        for_each_tap(across, q, first_column, last_column, [&](int x, double weight) {
          if (T(weight) != T(0)) sum += T(weight) * T(row[x]);
        });
        value += T(row_weight) * sum;
      });
    }
    targets[k * count + i] = value;
  }
}

// A block for each box, a thread for each pixel of its target: all read the same edge at a time.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    polygon_mask_targets_kernel(const Polygons polygons, const double* __restrict__ boxes,
                                const int64_t* __restrict__ matched, int rows, int columns, T* __restrict__ targets) {
  const int64_t k = blockIdx.x;
  const int count = rows * columns;
  const double* box = boxes + 4 * k;
  const int64_t index = matched[k];
  const TargetAxis x(box[0], box[2], columns), y(box[1], box[3], rows);
  const bool valid = x.finite() && y.finite() && index >= 0 && index < polygons.object_count;
  const int64_t first_ring = valid ? polygons.object(index) : 0, last_ring = valid ? polygons.object(index + 1) : 0;
  for (int i = int(threadIdx.x); i < count; i += kThreads) {
    const double column = x.centre(i % columns), line = y.centre(i / columns);
    bool inside = false;
    for (int64_t r = first_ring; r < last_ring; ++r) {
      const int64_t first = polygons.ring(r), last = polygons.ring(r + 1);
      bool odd = false;
      for (int64_t v = first; v < last; ++v) {
        const double* a = polygons.points + 2 * v;
        const double* b = polygons.points + 2 * (v + 1 < last ? v + 1 : first);
        if (edge_crosses(a, b, line)) odd ^= column < edge_crossing(a, b, line);
      }
      inside |= odd;
    }
    targets[k * count + i] = valid ? T(inside) : std::numeric_limits<T>::quiet_NaN();
  }
}

}  // namespace

template <class T>
cudaError_t polygon_mask_targets(const Polygons& polygons, const double* boxes, const int64_t* matched, int64_t count,
                                 int rows, int columns, T* targets, cudaStream_t stream) {
  return launch(polygon_mask_targets_kernel<T>, dim3(unsigned(count)), dim3(kThreads), 0, stream, polygons, boxes,
                matched, rows, columns, targets);
}

template cudaError_t polygon_mask_targets<float>(const Polygons&, const double*, const int64_t*, int64_t, int, int,
                                                 float*, cudaStream_t);
template cudaError_t polygon_mask_targets<double>(const Polygons&, const double*, const int64_t*, int64_t, int, int,
                                                  double*, cudaStream_t);

template <class S, class T>
cudaError_t mask_targets(const MaskTargetSizes& sizes, const S* masks, const T* boxes, const int64_t* matched,
                         T* targets, cudaStream_t stream) {
  return launch(mask_targets_kernel<S, T>, dim3(unsigned(sizes.boxes)), dim3(kThreads), 0, stream, sizes, masks, boxes,
                matched, targets);
}

#define INSTANTIATE(S, T) \
  template cudaError_t mask_targets<S, T>(const MaskTargetSizes&, const S*, const T*, const int64_t*, T*, cudaStream_t);
INSTANTIATE(uint8_t, float)
INSTANTIATE(uint8_t, double)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
