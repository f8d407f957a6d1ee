// The CUDA launchers of the transposed convolution. Maps have any strides, and fewer than 2^30 pixels a side.
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

// Depth of packed weights and maps: whole 16 bytes.
template <class T>
__host__ __device__ constexpr int64_t padded_depth(int64_t depth) {
  constexpr int64_t pack = 16 / int64_t(sizeof(T));
  return (depth + pack - 1) / pack * pack;
}

inline bool aligned_16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Whether channels (a group has so many) move 16 bytes at a time: side by side, whole, and starting where the memory's
// 16 bytes do.
template <class T>
bool conv_wide(const ConvMap& map, const T* data, int64_t channels) {
  constexpr int64_t pack = 16 / int64_t(sizeof(T));
  return map.stride_c == 1 && channels % pack == 0 && map.stride_n % pack == 0 && map.stride_y % pack == 0 &&
         map.stride_x % pack == 0 && aligned_16(data);
}

// A copy packed[a.to, b.to, c.to, d.to, depth] = source, for all indices below the sizes; zeros up to `padded`.
struct ConvAxisPack {
  int64_t size, from, to;  // strides in elements
};
struct ConvPack {
  ConvAxisPack a, b, c, d;  // d: neighbours in the source
  int64_t depth, depth_from, padded;
};
template <class T>
cudaError_t conv_pack(const ConvPack& pack, const T* source, T* packed, cudaStream_t stream);

// packed: weights [kernel_y][kernel_x][groups][channels][padded depth]. `source` is wide (conv_wide), for channels
// padded as depth is.
template <class T, class A>
cudaError_t conv_gather(const ConvShape& shape, const ConvMap& from, const T* source, const T* packed,
                        const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, int64_t multiprocessors,
                        cudaStream_t stream);

// Depthwise: a group is one channel, read and written. weight: [kernel_y][kernel_x][padded groups].
template <class T, class A>
cudaError_t conv_depthwise(const ConvShape& shape, const ConvMap& from, const T* source, const T* weight,
                           const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, cudaStream_t stream);

// Parts that the pixels of an input are added up in, before they are added up.
int64_t conv_grad_weight_parts(const ConvShape& shape, int64_t pixels);

// partials [parts][kernel_y][kernel_x][groups][depth][channels]. source and grad are wide, for channels padded as depth
// is.
template <class T, class A>
cudaError_t conv_grad_weight_partials(const ConvShape& shape, const ConvMap& from, const T* source, const ConvMap& to,
                                      const T* grad, int64_t parts, A* partials, cudaStream_t stream);

// The same of a depthwise convolution, from maps of any strides.
template <class T, class A>
cudaError_t conv_depthwise_grad_partials(const ConvShape& shape, const ConvMap& from, const T* source,
                                         const ConvMap& to, const T* grad, int64_t parts, A* partials,
                                         cudaStream_t stream);

// out, by strides for (group, depth, channel, y, x) = the sum of all parts.
template <class T, class A>
cudaError_t conv_grad_weight_total(const ConvShape& shape, const A* partials, int64_t parts, int64_t stride_group,
                                   int64_t stride_depth, int64_t stride_channel, int64_t stride_y, int64_t stride_x,
                                   T* out, cudaStream_t stream);

}  // namespace structops::cuda
