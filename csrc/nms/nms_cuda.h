// Greedy non-maximum suppression on the GPU: launchers, free of torch. T is float or double.
//
// Everything is for a batch of images with room for as many boxes each, row by row; plain NMS is a batch of one. How
// many kernels are launched depends on the number of boxes, not on that of images.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "nms/nms_filter.h"

namespace structops::cuda {

// An integer that sorts as its score does.
template <class T>
using NmsKey = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <class T>
constexpr NmsKey<T> kNoBox = std::numeric_limits<NmsKey<T>>::max();  // of boxes that take no part: after all others

// keys [B, N] whose rising order is that of falling scores [B, N]: -0 equal to 0, NaN last, then what the filter leaves
// out.
template <class T>
cudaError_t nms_keys(const T* scores, int64_t images, int64_t n, const NmsFilter& filter, NmsKey<T>* keys,
                     cudaStream_t stream);

// out[b, i] = values[b, order[b, i]]: the classes [B, N] in the order of the scores.
cudaError_t nms_gather_classes(const int64_t* values, const int64_t* order, int64_t images, int64_t n, int64_t* out,
                               cudaStream_t stream);

// Boxes are taken in the order of class, then falling score; without classes, of falling score.
template <class T>
struct NmsInput {
  int64_t images, n;
  const int64_t* by_score;  // [B, N] box of each rank, by falling score
  const int64_t*
      by_class;            // [B, N] rank of each place, where places are sorted by class, then rank; null: place = rank
  const int64_t* classes;  // [B, N] class of each place, rising; null with by_class
  const NmsKey<T>* keys;   // [B, N] of each rank, rising, for kNoBox; null: every box takes part
  double iou_threshold;
};

struct NmsOutput {
  int64_t max_output;  // at most so many of an image
  bool padded;         // the rest of indices is filled with -1, else left as it is
  int64_t* indices;    // [B, max_output] the kept boxes of each image by falling score
  int64_t* counts;     // [B] of them
};

// Bytes of device memory that nms needs: linear in images * n.
template <class T>
size_t nms_workspace(int64_t images, int64_t n);

// boxes [B, N, 4] (x1, y1, x2, y2), dense. Nothing waits for the GPU.
template <class T>
cudaError_t nms(const NmsInput<T>& in, const T* boxes, void* workspace, const NmsOutput& out, cudaStream_t stream);

}  // namespace structops::cuda
