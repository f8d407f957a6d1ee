// Box coding on the GPU: launchers, free of torch. T is float or double; arguments are those of
// box_coding/box_coding.h. Nothing waits for the GPU.
#pragma once
#include <cuda_runtime_api.h>

#include "box_coding/box_coding.h"

namespace structops::cuda {

template <class T>
cudaError_t coding_arguments(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& to,
                             cudaStream_t stream);
template <class T>
cudaError_t code_boxes(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& values,
                       T* out, cudaStream_t stream);
template <class T>
cudaError_t code_boxes_backward(const CodingParams& p, bool decode, const T* grad, const T* in, const T* anchors,
                                const Curves<T>& values, T* grad_in, T* grad_anchors, cudaStream_t stream);

}  // namespace structops::cuda
