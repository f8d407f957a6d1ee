// The CPU launchers of the transposed convolution. Maps are dense, NCHW (planar) or NHWC; all of one layout.
#pragma once
#include "conv_transpose2d/conv_engine_cpu.h"

namespace structops::cpu {

// out [batch, out_channels, out_height, out_width]
template <class S>
void conv_transpose2d(const ConvTransposeParams& p, const S* input, bool planar, const S* weight,
                      const WeightStrides& strides, const Epilogue<S, Arithmetic<S>>& epilogue, S* out,
                      ParallelFor parallel_for);

// grad_input [batch, in_channels, height, width]
template <class S>
void conv_transpose2d_grad_input(const ConvTransposeParams& p, const S* grad, bool planar, const S* weight,
                                 const WeightStrides& strides, S* grad_input, ParallelFor parallel_for);

// out [in_channels, out_channels / groups, kernel_height, kernel_width], by its strides
template <class S>
void conv_transpose2d_grad_weight(const ConvTransposeParams& p, const S* input, const S* grad, bool planar, S* out,
                                  const WeightStrides& strides, ParallelFor parallel_for);

}  // namespace structops::cpu
