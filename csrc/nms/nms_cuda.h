// Greedy non-maximum suppression on the GPU: launchers, free of torch. T is float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace structops::cuda {

// keys [N] whose rising order is that of falling scores [N], NaN last, -0 equal to 0. Key is int32_t for float,
// int64_t for double.
template <class T, class Key>
cudaError_t nms_keys(const T* scores, int64_t n, Key* keys, cudaStream_t stream);

// out[i] = values[order[i]]: the classes in the order of the scores.
cudaError_t nms_gather_classes(const int64_t* values, const int64_t* order, int64_t n, int64_t* out,
                               cudaStream_t stream);

// Boxes are taken in the order of class, then falling score; without classes, of falling score.
struct NmsInput {
  int64_t n;
  const int64_t* by_score;  // [N] box of each rank, by falling score
  const int64_t* by_class;  // [N] rank of each place, where places are sorted by class, then rank; null: place = rank
  const int64_t* classes;   // [N] class of each place, rising; null with by_class
  double iou_threshold;
};

// Bytes of device memory that nms needs: linear in n.
template <class T>
size_t nms_workspace(int64_t n);

// kept [N]: the kept boxes' indices by falling score, count of them; boxes [N, 4] (x1, y1, x2, y2), dense.
// Nothing waits for the GPU.
template <class T>
cudaError_t nms(const NmsInput& in, const T* boxes, void* workspace, int64_t* kept, int64_t* count,
                cudaStream_t stream);

}  // namespace structops::cuda
