// Maps and weights in the order that the products on the GPU read them; for the CUDA bindings.
#pragma once
#include "common/cuda/binding.h"
#include "conv_transpose2d/conv_transpose2d_cuda.h"

namespace structops {

inline cuda::ConvMap map_of(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3), t.size(2), t.size(3)};
}

// A map whose channels move 16 bytes at a time: the tensor itself, or a copy [n, y, x, group, padded channels].
template <class T>
struct WideMap {
  cuda::ConvMap map;
  Tensor holder;
  const T* data;

  WideMap(const Tensor& t, int64_t groups, cudaStream_t stream)
      : map(map_of(t)), holder(t), data(structops::data<T>(t)) {
    const int64_t channels = t.size(1) / groups, padded = cuda::padded_depth<T>(channels), pixel = groups * padded;
    if (pixel == 0 || cuda::conv_wide(map, data, channels)) return;
    const cuda::ConvMap to{t.size(2) * t.size(3) * pixel, 1, t.size(3) * pixel, pixel, t.size(2), t.size(3)};
    holder = empty({t.size(0) * to.stride_n}, t.scalar_type(), t);
    const cuda::ConvPack pack{{t.size(0), map.stride_n, to.stride_n},
                              {groups, channels * map.stride_c, padded},
                              {t.size(2), map.stride_y, to.stride_y},
                              {t.size(3), map.stride_x, to.stride_x},
                              channels,
                              map.stride_c,
                              padded};
    STD_CUDA_CHECK(cuda::conv_pack(pack, data, mutable_data<T>(holder), stream));
    map = to;
    data = structops::data<T>(holder);
  }
};

// The weights [kernel_y, kernel_x, groups, written channels, padded depth].
template <class T>
inline Tensor packed_weight(const cuda::ConvShape& s, const Tensor& weight, cudaStream_t stream) {
  const int64_t padded = cuda::padded_depth<T>(s.depth), row = s.groups * s.channels * padded;
  const Tensor packed = empty({s.y.kernel * s.x.kernel * row}, weight.scalar_type(), weight);
  if (packed.numel() == 0) return packed;
  const int64_t read = s.forward ? 0 : 1;  // the weight's dimension that is summed over
  const cuda::ConvPack pack{{s.groups, weight.size(0) / s.groups * weight.stride(0), s.channels * padded},
                            {s.channels, weight.stride(1 - read), padded},
                            {s.y.kernel, weight.stride(2), s.x.kernel * row},
                            {s.x.kernel, weight.stride(3), row},
                            s.depth,
                            weight.stride(read),
                            padded};
  STD_CUDA_CHECK(cuda::conv_pack(pack, data<T>(weight), mutable_data<T>(packed), stream));
  return packed;
}

}  // namespace structops
