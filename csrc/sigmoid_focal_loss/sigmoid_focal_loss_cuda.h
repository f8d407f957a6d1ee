// Sigmoid focal loss on the GPU: launchers, free of torch. T is __half, __nv_bfloat16, float or double.
#pragma once
#include <cuda_runtime_api.h>

#include "sigmoid_focal_loss/sigmoid_focal_loss.h"

namespace structops::cuda {

template <class T>
cudaError_t sigmoid_focal_loss(const FocalLaw& law, const FocalInput<T>& in, T* loss, cudaStream_t stream);

// Doubles of device memory that the sum needs.
int64_t sigmoid_focal_loss_partials(int64_t count);

// loss [1]: the sum of all losses / divisor, the same to the bit in every run.
template <class T>
cudaError_t sigmoid_focal_loss_sum(const FocalLaw& law, const FocalInput<T>& in, double divisor, double* partials,
                                   T* loss, cudaStream_t stream);

// grad_inputs [count] = grad [count] (where reduced: grad [1] / divisor) x the loss's derivative.
template <class T>
cudaError_t sigmoid_focal_loss_backward(const FocalLaw& law, const FocalInput<T>& in, const T* grad, bool reduced,
                                        double divisor, T* grad_inputs, cudaStream_t stream);

}  // namespace structops::cuda
