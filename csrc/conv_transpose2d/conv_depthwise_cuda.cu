// Depthwise transposed convolution on the GPU: an output is a handful of multiply-adds, so memory sets the pace, and
// index arithmetic would, if every output had its own. A thread has 16 bytes of outputs: of a row in NCHW, of channels
// of one pixel in NHWC.
#include "common/cuda/ptx.cuh"
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

// The taps that reach one output, and the pixels they read: tap + j * tap_step reads pixel + j * pixel_step, with the
// steps of the axis.
struct Walk {
  int tap, pixel;
};
// Neighbouring outputs one after another, so that they share a division.
class Walks {
 public:
  const int tap_step, pixel_step, kernel, size;

  __device__ __forceinline__ Walks(const ConvSteps& s, int64_t out, int64_t pixels, bool forward)
      : tap_step(forward ? int(s.stride / s.common) : 1),
        pixel_step(int(forward ? -s.dilation / s.common : s.dilation)),
        kernel(int(s.kernel)),
        size(int(pixels)),
        s_(s),
        forward_(forward),
        q_(out),
        phase_(0) {
    if (!forward) return;
    q_ = (out + s.padding) / s.stride;
    phase_ = out + s.padding - q_ * s.stride;
  }
  __device__ __forceinline__ Walk next() {
    const Walk found = at();
    ++(forward_ ? phase_ : q_);
    if (forward_ && phase_ == s_.stride) phase_ = 0, ++q_;
    return found;
  }
  // body(), and the pointers go on, for each tap; only for those whose pixel is inside the map
  template <class T, class Body>
  __device__ __forceinline__ void each(const Walk& walk, const T* from, int64_t from_stride, const T* by,
                                       int64_t by_stride, const Body& body) const {
    from += walk.pixel * from_stride;
    by += walk.tap * by_stride;
    int pixel = walk.pixel;
    for (int tap = walk.tap; tap < kernel; tap += tap_step) {
      if (pixel >= 0 && pixel < size) body(from, by);
      pixel += pixel_step;
      from += pixel_step * from_stride;
      by += tap_step * by_stride;
    }
  }

 private:
  __device__ __forceinline__ Walk at() const {
    if (!forward_) return {0, int(q_ * s_.stride - s_.padding)};
    if (s_.dilation == 1) return {int(phase_), int(q_)};
    if (phase_ % s_.common != 0) return {kernel, 0};  // no tap reaches it
    const int64_t tap = phase_ / s_.common * s_.inverse % tap_step;
    return {int(tap), int(q_ + (phase_ - tap * s_.dilation) / s_.stride)};
  }

  const ConvSteps& s_;
  const bool forward_;
  int64_t q_, phase_;
};

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
  Walks vertical(s.y, y, a.from.height, s.forward), horizontal(s.x, x, a.from.width, s.forward);
  Walk columns[kPlanar ? V : 1];
#pragma unroll
  for (int v = 0; v < (kPlanar ? V : 1); ++v) columns[v] = horizontal.next();
  const auto row = [&](const T* pixels, const T* weights) {
    if constexpr (kPlanar) {
#pragma unroll
      for (int v = 0; v < V; ++v)
        horizontal.each(columns[v], pixels, a.from.stride_x, weights, channels,
                        [&](const T* pixel, const T* by) { sums[v] = fused(A(up(*pixel)), A(up(*by)), sums[v]); });
    } else {
      horizontal.each(columns[0], pixels, a.from.stride_x, weights, channels, [&](const T* pixel, const T* by) {
        const auto values = load_pack<T, V>(pixel), factors = load_pack<T, V>(by);
#pragma unroll
        for (int v = 0; v < V; ++v) sums[v] = fused(A(up(values, v)), A(up(factors, v)), sums[v]);
      });
    }
  };
  vertical.each(vertical.next(), plane, a.from.stride_y, weight, s.x.kernel * channels, row);
  const int64_t apart = kPlanar ? a.to.stride_x : a.to.stride_c;
  const int64_t at = image * a.to.stride_n + channel * a.to.stride_c + y * a.to.stride_y + x * a.to.stride_x;
  const T* residual = a.epilogue.residual ? a.epilogue.residual + at : nullptr;
  Pack<T, V> added;
#pragma unroll
  for (int v = 0; v < V; ++v) added.value[v] = residual && v < live ? residual[v * apart] : down<T>(0);
  const auto pack =
      finish(a.epilogue, sums, [&](int v) { return affine(a.epilogue, kPlanar ? channel : channel + v); }, added);
  if (a.wide) {
    ptx::store_pack(a.out + at, pack);
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
