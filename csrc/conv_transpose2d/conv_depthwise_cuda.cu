// Depthwise transposed convolution on the GPU: an output is a handful of multiply-adds, so memory sets the pace, and
// index arithmetic would, if every output had its own. A thread has 16 bytes of outputs: of a row in NCHW, of channels
// of one pixel in NHWC.
#include "conv_transpose2d/conv_epilogue.cuh"

namespace structops::cuda {
namespace {

template <class T, class A>
struct Args {
  ConvShape shape;
  ConvMap from, to;
  const T* source;
  const T* weight;  // [kernel_y][kernel_x][padded channels]
  T* out;
  ConvEpilogue<T, A> epilogue;
  int64_t across;  // of a row's outputs (or a pixel's channels), the vectors
  bool wide;       // outputs of a vector move together
};

// The taps that reach one output, and the pixels they read: tap + j * tap_step reads pixel + j * pixel_step.
struct Walk {
  int tap, tap_step, pixel, pixel_step;
};
__device__ __forceinline__ Walk walk(const ConvSteps& s, int64_t out, bool forward) {
  if (!forward) return {0, 1, int(out * s.stride - s.padding), int(s.dilation)};
  const int64_t at = out + s.padding, q = at / s.stride, phase = at % s.stride;
  if (s.dilation == 1) return {int(phase), int(s.stride), int(q), -1};
  if (phase % s.common != 0) return {int(s.kernel), 1, 0, 0};
  const int64_t step = s.stride / s.common, tap = phase / s.common * s.inverse % step;
  return {int(tap), int(step), int(q + (phase - tap * s.dilation) / s.stride), int(-s.dilation / s.common)};
}

// body(tap, pixel) for those inside the map
template <class Body>
__device__ __forceinline__ void each_tap(const Walk& w, int64_t kernel, int64_t size, const Body& body) {
  int pixel = w.pixel;
  for (int tap = w.tap; tap < kernel; tap += w.tap_step, pixel += w.pixel_step)
    if (pixel >= 0 && pixel < size) body(tap, pixel);
}

template <class T, int V, bool kPlanar>
__global__ void __launch_bounds__(256) conv_depthwise_kernel(const Args<T, acc_t<T>> a, int64_t count) {
  using A = acc_t<T>;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const ConvShape& s = a.shape;
  // NCHW: [image][channel][y][vector of x]; NHWC: [image][y][x][vector of channels].
  const int64_t vector = i % a.across * V, rest = i / a.across;
  const int64_t x = kPlanar ? vector : rest % a.to.width;
  const int64_t y = (kPlanar ? rest : rest / a.to.width) % a.to.height;
  const int64_t above = (kPlanar ? rest : rest / a.to.width) / a.to.height;
  const int64_t channel = kPlanar ? above % s.groups : vector, image = kPlanar ? above / s.groups : above;
  const int64_t channels = padded_depth<T>(s.groups);
  const T* plane = a.source + image * a.from.stride_n + channel * a.from.stride_c;
  const T* weight = a.weight + channel;
  const int live = kPlanar ? int(a.to.width - x < V ? a.to.width - x : V) : V;
  A sums[V] = {};
  Walk columns[kPlanar ? V : 1];
#pragma unroll
  for (int v = 0; v < (kPlanar ? V : 1); ++v) columns[v] = walk(s.x, x + v, s.forward);
  each_tap(walk(s.y, y, s.forward), s.y.kernel, a.from.height, [&](int64_t tap_y, int64_t from_y) {
    const T* row = plane + from_y * a.from.stride_y;
    const T* weights = weight + tap_y * s.x.kernel * channels;
    if constexpr (kPlanar) {
#pragma unroll
      for (int v = 0; v < V; ++v)
        each_tap(columns[v], s.x.kernel, a.from.width, [&](int64_t tap, int64_t pixel) {
          sums[v] = fused(A(up(row[pixel * a.from.stride_x])), A(up(weights[tap * channels])), sums[v]);
        });
    } else {
      each_tap(columns[0], s.x.kernel, a.from.width, [&](int64_t tap, int64_t pixel) {
        const auto values = load_pack<T, V>(row + pixel * a.from.stride_x);
        const auto by = load_pack<T, V>(weights + tap * channels);
#pragma unroll
        for (int v = 0; v < V; ++v) sums[v] = fused(A(up(values, v)), A(up(by, v)), sums[v]);
      });
    }
  });
  const int64_t apart = kPlanar ? a.to.stride_x : a.to.stride_c;
  const int64_t at = image * a.to.stride_n + channel * a.to.stride_c + y * a.to.stride_y + x * a.to.stride_x;
  const T* residual = a.epilogue.residual ? a.epilogue.residual + at : nullptr;
  Pack<T, V> added;
#pragma unroll
  for (int v = 0; v < V; ++v) added.value[v] = residual && v < live ? residual[v * apart] : down<T>(0);
  const auto pack =
      finish(a.epilogue, sums, [&](int v) { return affine(a.epilogue, kPlanar ? channel : channel + v); }, added);
  if (a.wide) {
    *reinterpret_cast<Pack<T, V>*>(a.out + at) = pack;
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < live) a.out[at + v * apart] = pack.value[v];
  }
}

template <class T, int V, bool kPlanar, class A>
cudaError_t start(Args<T, A>& a, bool wide, cudaStream_t stream) {
  a.across = ceil_div(kPlanar ? a.to.width : a.shape.groups, int64_t(V));
  a.wide = wide;
  const int64_t count = a.shape.batch * a.to.height * (kPlanar ? a.shape.groups : a.to.width) * a.across;
  return launch(conv_depthwise_kernel<T, V, kPlanar>, dim3(unsigned(ceil_div(count, int64_t(256)))), dim3(256), 0,
                stream, a, count);
}

}  // namespace

template <class T, class A>
cudaError_t conv_depthwise(const ConvShape& shape, const ConvMap& from, const T* source, const T* weight,
                           const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, cudaStream_t stream) {
  Args<T, A> a{shape, from, to, source, weight, out, epilogue};
  constexpr int V = kPack<T>;
  if (to.stride_c != 1) {
    const bool wide = to.stride_x == 1 && to.width % V == 0 && to.stride_y % V == 0 && to.stride_c % V == 0 &&
                      to.stride_n % V == 0 && aligned_16(out);
    return start<T, V, true>(a, wide, stream);
  }
  // Groups are channels.
  if (conv_wide(from, source, shape.groups) && conv_wide(to, out, shape.groups))
    return start<T, V, false>(a, true, stream);
  return start<T, 1, false>(a, true, stream);
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
