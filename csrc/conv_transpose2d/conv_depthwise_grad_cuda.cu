// The gradient of the weight of a depthwise transposed convolution on the GPU: a sum of products for each channel and
// tap, for which a matrix product would have a tile each. A block has a tap of 32 channels in NHWC, and a row of taps
// of one channel in NCHW, so that neighbouring threads read neighbours of the gradient; the others of its 256 threads
// share the pixels, and their sums are added up in order.
#include "conv_transpose2d/conv_epilogue.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256, kChannels = 32;

template <class T, class A>
struct Args {
  ConvShape shape;
  ConvMap from, to;
  const T* source;
  const T* grad;
  A* partials;             // [parts][kernel_y][kernel_x][groups]
  int64_t parts, columns;  // columns: blocks along a row of taps (NCHW) or channels (NHWC)
  int across;              // threads along either
};

template <class T, bool kPlanar>
__global__ void __launch_bounds__(kThreads) conv_depthwise_grad_kernel(const Args<T, acc_t<T>> a) {
  using A = acc_t<T>;
  __shared__ A sums[kThreads];
  const ConvShape& s = a.shape;
  const int across = int(threadIdx.x) % a.across, down = int(threadIdx.x) / a.across, apart = kThreads / a.across;
  const int64_t column = blockIdx.x % a.columns * a.across + across, rest = blockIdx.x / a.columns;
  // [channel][tap y][taps x], or [tap y][tap x][channels]
  const int64_t tap_x = kPlanar ? column : rest % s.x.kernel, above = kPlanar ? rest : rest / s.x.kernel;
  const int64_t tap_y = kPlanar ? above % s.y.kernel : above, channel = kPlanar ? above / s.y.kernel : column;
  const bool used = down < apart && tap_x < s.x.kernel && channel < s.groups;
  const int64_t part = blockIdx.y, pixels = s.batch * a.from.height * a.from.width;
  const int64_t end = pixels * (part + 1) / a.parts;
  A sum = 0;
  if (used) {
    const T* source = a.source + channel * a.from.stride_c;
    const T* grad = a.grad + channel * a.to.stride_c;
    for (int64_t pixel = pixels * part / a.parts + down; pixel < end; pixel += apart) {
      const int64_t x = pixel % a.from.width, of_rows = pixel / a.from.width;
      const int64_t y = of_rows % a.from.height, image = of_rows / a.from.height;
      const int64_t oy = y * s.y.stride - s.y.padding + tap_y * s.y.dilation;
      const int64_t ox = x * s.x.stride - s.x.padding + tap_x * s.x.dilation;
      if (oy < 0 || oy >= a.to.height || ox < 0 || ox >= a.to.width) continue;
      sum = fused(A(up(source[image * a.from.stride_n + y * a.from.stride_y + x * a.from.stride_x])),
                  A(up(grad[image * a.to.stride_n + oy * a.to.stride_y + ox * a.to.stride_x])), sum);
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (down > 0 || !used) return;
  for (int i = 1; i < apart; ++i) sum += sums[i * a.across + across];
  a.partials[((part * s.y.kernel + tap_y) * s.x.kernel + tap_x) * s.groups + channel] = sum;
}

}  // namespace

template <class T, class A>
cudaError_t conv_depthwise_grad_partials(const ConvShape& shape, const ConvMap& from, const T* source,
                                         const ConvMap& to, const T* grad, int64_t parts, A* partials,
                                         cudaStream_t stream) {
  const bool planar = to.stride_c != 1;
  const int64_t along = planar ? shape.x.kernel : shape.groups, most = planar ? kThreads : kChannels;
  const int across = int(along < most ? along : most);
  const Args<T, A> args{shape, from, to, source, grad, partials, parts, ceil_div(along, int64_t(across)), across};
  const int64_t blocks = args.columns * shape.y.kernel * (planar ? shape.groups : shape.x.kernel);
  const auto kernel = planar ? conv_depthwise_grad_kernel<T, true> : conv_depthwise_grad_kernel<T, false>;
  return launch(kernel, dim3(unsigned(blocks), unsigned(parts)), dim3(kThreads), 0, stream, args);
}

#define INSTANTIATE(T, A)                                                                                             \
  template cudaError_t conv_depthwise_grad_partials<T, A>(const ConvShape&, const ConvMap&, const T*, const ConvMap&, \
                                                          const T*, int64_t, A*, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
