// Matrix NMS on the GPU: launchers, free of torch. T is float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "matrix_nms/matrix_nms_rule.h"

namespace structops::cuda {

template <class T>
struct MatrixNmsInput {
  int64_t n;
  const T* scores;          // [N]
  const T* boxes;           // [N, 4] (x1, y1, x2, y2), or null
  const T* ious;            // [N, N], row: the box that is lowered; null with boxes
  const int64_t* by_score;  // [N] box of each rank, by falling score
  const int64_t* by_class;  // [N] rank of each place, where places are sorted by class, then rank; null: place = rank
  const int64_t* classes;   // [N] class of each place, rising; null with by_class
};

// Bytes of device memory that matrix_nms needs: linear in n.
template <class T>
size_t matrix_nms_workspace(int64_t n);

// lowered [N]: each score times its weight.
template <class T>
cudaError_t matrix_nms(const MatrixNmsInput<T>& in, const MatrixNmsRule<T>& rule, void* workspace, T* lowered,
                       cudaStream_t stream);

}  // namespace structops::cuda
