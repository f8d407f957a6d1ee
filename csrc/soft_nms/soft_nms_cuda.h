// Soft non-maximum suppression on the GPU: launchers, free of torch. T is float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "nms/nms_cuda.h"
#include "soft_nms/soft_nms_rule.h"

namespace structops::cuda {

template <class T>
struct SoftNmsInput {
  int64_t n;
  const T* boxes;          // [N, 4] (x1, y1, x2, y2)
  const T* scores;         // [N]
  const int64_t* order;    // [N] box of each place, where places are sorted by class, then index; null: place = box
  const int64_t* classes;  // [N] class of each place; null with order: one class
};

// Bytes of device memory that soft_nms_decay needs.
template <class T>
size_t soft_nms_workspace(int64_t n);

// result [N]: the score with which a box is taken, of the best `most` of its class; 0 where it is not.
template <class T>
cudaError_t soft_nms_decay(const SoftNmsInput<T>& in, const SoftNmsRule<T>& rule, int64_t most, void* workspace,
                           T* result, cudaStream_t stream);

// keys [N] of the results (by nms_keys, those of 0 left out) in rising order, and the box of each: into
// indices [most] and decayed [most], filled up with -1 and 0, and count [1] of them.
template <class T>
cudaError_t soft_nms_finish(const NmsKey<T>* keys, const int64_t* order, const T* result, int64_t n, int64_t most,
                            int64_t* indices, T* decayed, int64_t* count, cudaStream_t stream);

}  // namespace structops::cuda
