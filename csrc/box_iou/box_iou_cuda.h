// Intersection over union of boxes on the GPU: launchers, free of torch. T is float or double; arguments are those of
// box_iou/box_iou.h. Nothing waits for the GPU.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "box_iou/box_iou.h"

namespace structops::cuda {

template <class T>
cudaError_t box_ratios(const T* boxes, int64_t n, T* ratios, cudaStream_t stream);

template <class T>
cudaError_t box_iou(const BoxIouParams& p, const BoxSets<T>& sets, T* output, cudaStream_t stream);

// Bytes of device memory that the backward needs: an eighth of the gradient's and less.
template <class T>
size_t box_iou_backward_workspace(const BoxIouParams& p);
template <class T>
cudaError_t box_iou_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                             void* workspace, cudaStream_t stream);

template <class T>
cudaError_t box_iou_rows(const BoxIouParams& p, const BoxSets<T>& sets, T* output, cudaStream_t stream);
template <class T>
cudaError_t box_iou_rows_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                                  cudaStream_t stream);

}  // namespace structops::cuda
