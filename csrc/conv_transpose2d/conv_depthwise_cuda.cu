// Depthwise transposed convolution on the GPU: an output is a handful of multiply-adds, so memory sets the pace. A
// thread has one output; neighbouring threads have neighbours in memory.
#include "conv_transpose2d/conv_epilogue.cuh"

namespace structops::cuda {
namespace {

template <class T, class A>
__global__ void conv_depthwise_kernel(const ConvShape shape, const ConvMap from, const T* __restrict__ source,
                                      const T* __restrict__ weight, const ConvMap to, T* __restrict__ out,
                                      const ConvEpilogue<T, A> epilogue, int64_t count, bool planar) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  // [image][channel][y][x], or [image][y][x][channel]
  const int64_t x = planar ? i % to.width : i / shape.groups % to.width;
  const int64_t y = planar ? i / to.width % to.height : i / shape.groups / to.width % to.height;
  const int64_t channel = planar ? i / to.width / to.height % shape.groups : i % shape.groups;
  const int64_t image = i / to.width / to.height / shape.groups;
  const int64_t step_y = shape.forward ? shape.y.stride : 1, step_x = shape.forward ? shape.x.stride : 1;
  const ConvTaps ys = conv_taps(shape.y, y % step_y, shape.forward), xs = conv_taps(shape.x, x % step_x, shape.forward);
  const T* plane = source + image * from.stride_n + channel * from.stride_c;
  A sum = 0;
  for (int64_t ty = 0; ty < ys.count; ++ty) {
    const int64_t at_y = y / step_y * ys.scale + ys.offset(ty);
    if (at_y < 0 || at_y >= from.height) continue;
    for (int64_t tx = 0; tx < xs.count; ++tx) {
      const int64_t at_x = x / step_x * xs.scale + xs.offset(tx);
      if (at_x < 0 || at_x >= from.width) continue;
      const int64_t tap = ys.tap(ty) * shape.x.kernel + xs.tap(tx);
      sum = fused(A(up(plane[at_y * from.stride_y + at_x * from.stride_x])),
                  A(up(weight[(tap * shape.groups + channel) * padded_depth<T>(1)])), sum);
    }
  }
  const int64_t at = image * to.stride_n + channel * to.stride_c + y * to.stride_y + x * to.stride_x;
  const T residual = epilogue.residual ? epilogue.residual[at] : down<T>(0);
  out[at] = down<T>(finish(epilogue, sum, channel, residual));
}

}  // namespace

template <class T, class A>
cudaError_t conv_depthwise(const ConvShape& shape, const ConvMap& from, const T* source, const T* weight,
                           const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, cudaStream_t stream) {
  const int64_t count = shape.batch * shape.groups * to.height * to.width;
  return launch(conv_depthwise_kernel<T, A>, dim3(unsigned(ceil_div(count, int64_t(256)))), dim3(256), 0, stream, shape,
                from, source, weight, to, out, epilogue, count, to.stride_c != 1);
}

#define INSTANTIATE(T, A)                                                                                             \
  template cudaError_t conv_depthwise<T, A>(const ConvShape&, const ConvMap&, const T*, const T*, const ConvMap&, T*, \
                                            const ConvEpilogue<T, A>&, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
