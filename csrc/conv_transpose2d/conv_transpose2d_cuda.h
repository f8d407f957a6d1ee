// The CUDA launchers of the transposed convolution. Maps have any strides.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace structops::cuda {

// [N, C, H, W]: strides in elements, size of a plane.
struct ConvMap {
  int64_t stride_n, stride_c, stride_y, stride_x;
  int64_t height, width;
};

// One axis: common = gcd(stride, dilation), inverse = that of dilation / common modulo stride / common.
struct ConvSteps {
  int64_t kernel, stride, padding, dilation, common, inverse;
};

struct ConvShape {
  int64_t batch, groups, depth, channels;  // of a group: read, and written
  ConvSteps y, x;
  bool forward;  // else the gradient of the input
};

// activation((sum + bias) * scale + shift + residual); null: none. residual has the output's strides.
template <class T, class A>
struct ConvEpilogue {
  const A *bias, *scale, *shift;
  const T* residual;
  int64_t activation;
  A negative_slope;
  bool residual_last;
};

// Channels of packed weights, padded to whole 16 bytes.
template <class T>
__host__ __device__ constexpr int64_t padded_depth(int64_t depth) {
  constexpr int64_t pack = 16 / int64_t(sizeof(T));
  return (depth + pack - 1) / pack * pack;
}

// packed [kernel_y][kernel_x][groups][channels][padded depth] = weight, by strides for (group, depth, channel, y, x).
template <class T>
cudaError_t conv_pack(const ConvShape& shape, const T* weight, int64_t stride_group, int64_t stride_depth,
                      int64_t stride_channel, int64_t stride_y, int64_t stride_x, T* packed, cudaStream_t stream);

template <class T, class A>
cudaError_t conv_gather(const ConvShape& shape, const ConvMap& from, const T* source, const T* packed,
                        const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, cudaStream_t stream);

// Depthwise: a group is one channel, read and written.
template <class T, class A>
cudaError_t conv_depthwise(const ConvShape& shape, const ConvMap& from, const T* source, const T* packed,
                           const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, cudaStream_t stream);

// Parts that the pixels of an input are added up in, before they are added up.
int64_t conv_grad_weight_parts(int64_t pixels);

// partials [parts][kernel_y][kernel_x][groups][depth][channels], then out by strides for (group, depth, channel, y, x).
template <class T, class A>
cudaError_t conv_grad_weight(const ConvShape& shape, const ConvMap& from, const T* source, const ConvMap& to,
                             const T* grad, int64_t parts, A* partials, int64_t stride_group, int64_t stride_depth,
                             int64_t stride_channel, int64_t stride_y, int64_t stride_x, T* out, cudaStream_t stream);

}  // namespace structops::cuda
