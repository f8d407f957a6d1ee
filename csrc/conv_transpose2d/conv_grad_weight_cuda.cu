// The gradient of a transposed convolution's weight on the GPU: for every tap a matrix product of input channels and
// output channels over the pixels that meet in it. Pixels are added up in parts of a fixed size, and the parts in
// order, so that the result does not depend on which block ends first.
#include "conv_transpose2d/conv_epilogue.cuh"
#include "conv_transpose2d/conv_tile.cuh"

namespace structops::cuda {
namespace {

constexpr int64_t kLeastPixels = 4096, kMostParts = 64;

template <class T, class A>
struct Args {
  ConvShape shape;  // depth: input channels, channels: output channels, of a group
  ConvMap from, to;
  const T* source;
  const T* grad;
  A* partials;
  int64_t parts, tiles;  // tiles of output channels
};

template <class T>
__global__ void __launch_bounds__(kConvThreads, 2) conv_grad_weight_kernel(const Args<T, acc_t<T>> a) {
  using Tile = ConvTile<T>;
  constexpr int V = kPack<T>, K = kDepth<T>;
  __shared__ __align__(16) unsigned char shared[ConvStages<T>::kTileRows * kRowBytes];
  __shared__ int64_t from_offset[K], to_offset[K];  // of the pixels of this step; -1: no pair
  T* left = ConvStages<T>::left(shared, 0);
  T* right = ConvStages<T>::right(shared, 0);
  const ConvShape& s = a.shape;
  const int64_t row0 = blockIdx.x / a.tiles * Tile::kPositions, column0 = blockIdx.x % a.tiles * Tile::kChannels;
  const int64_t part = blockIdx.y, pixels = s.batch * a.from.height * a.from.width;
  const int64_t begin = pixels * part / a.parts, end = pixels * (part + 1) / a.parts;
  for (int64_t z = blockIdx.z; z < s.y.kernel * s.x.kernel * s.groups; z += gridDim.z) {
    const int64_t group = z % s.groups, tap = z / s.groups, ky = tap / s.x.kernel, kx = tap % s.x.kernel;
    Tile tile;
    tile.clear();
    for (int64_t first = begin; first < end; first += K) {
      if (threadIdx.x < K) {
        const int64_t pixel = first + threadIdx.x, image = pixel / (a.from.height * a.from.width);
        const int64_t y = pixel / a.from.width % a.from.height, x = pixel % a.from.width;
        const int64_t oy = y * s.y.stride - s.y.padding + ky * s.y.dilation;
        const int64_t ox = x * s.x.stride - s.x.padding + kx * s.x.dilation;
        const bool met = pixel < end && oy >= 0 && oy < a.to.height && ox >= 0 && ox < a.to.width;
        from_offset[threadIdx.x] =
            met ? image * a.from.stride_n + y * a.from.stride_y + x * a.from.stride_x : int64_t(-1);
        to_offset[threadIdx.x] = met ? image * a.to.stride_n + oy * a.to.stride_y + ox * a.to.stride_x : int64_t(-1);
      }
      __syncthreads();
      const auto load = [&](T* to, int rows, const T* map, int64_t stride_c, int64_t channel, int64_t channels,
                            int64_t of_group, const int64_t* offsets) {
        for (int i = threadIdx.x; i < rows * kRowChunks; i += kConvThreads) {
          const int row = i % rows, chunk = i / rows;
          Pack<T, V> pack;
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const int64_t at = offsets[chunk * V + v];
            pack.value[v] =
                at >= 0 && channel + row < channels ? map[at + (of_group + channel + row) * stride_c] : down<T>(0);
          }
          *reinterpret_cast<Pack<T, V>*>(to + row * kStride<T> + chunk * V) = pack;
        }
      };
      load(left, Tile::kPositions, a.source, a.from.stride_c, row0, s.depth, group * s.depth, from_offset);
      load(right, Tile::kChannels, a.grad, a.to.stride_c, column0, s.channels, group * s.channels, to_offset);
      __syncthreads();
      tile.multiply(left, right);
      __syncthreads();
    }
    tile.each([&](int row, int column, acc_t<T> sum) {
      if (row0 + row < s.depth && column0 + column < s.channels)
        a.partials[(((part * s.y.kernel * s.x.kernel + tap) * s.groups + group) * s.depth + row0 + row) * s.channels +
                   column0 + column] = sum;
    });
  }
}

template <class T, class A>
__global__ void conv_grad_weight_total_kernel(const ConvShape s, const A* __restrict__ partials, int64_t parts,
                                              int64_t count, int64_t stride_group, int64_t stride_depth,
                                              int64_t stride_channel, int64_t stride_y, int64_t stride_x,
                                              T* __restrict__ out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  A total = 0;
  for (int64_t part = 0; part < parts; ++part) total += partials[part * count + i];
  const int64_t channel = i % s.channels, depth = i / s.channels % s.depth, rest = i / s.channels / s.depth;
  const int64_t group = rest % s.groups, tap = rest / s.groups;
  out[group * stride_group + depth * stride_depth + channel * stride_channel + tap / s.x.kernel * stride_y +
      tap % s.x.kernel * stride_x] = down<T>(total);
}

}  // namespace

int64_t conv_grad_weight_parts(int64_t pixels) {
  const int64_t parts = ceil_div(pixels, kLeastPixels);
  return parts < kMostParts ? parts : kMostParts;
}

template <class T, class A>
cudaError_t conv_grad_weight(const ConvShape& shape, const ConvMap& from, const T* source, const ConvMap& to,
                             const T* grad, int64_t parts, A* partials, int64_t stride_group, int64_t stride_depth,
                             int64_t stride_channel, int64_t stride_y, int64_t stride_x, T* out, cudaStream_t stream) {
  using Tile = ConvTile<T>;
  const int64_t tiles = ceil_div(shape.channels, int64_t(Tile::kChannels));
  const int64_t blocks = ceil_div(shape.depth, int64_t(Tile::kPositions)) * tiles;
  const int64_t z = shape.y.kernel * shape.x.kernel * shape.groups, count = z * shape.depth * shape.channels;
  const Args<T, A> args{shape, from, to, source, grad, partials, parts, tiles};
  const dim3 grid(unsigned(blocks), unsigned(parts), unsigned(z < 65535 ? z : 65535));
  const cudaError_t error = launch(conv_grad_weight_kernel<T>, grid, dim3(kConvThreads), 0, stream, args);
  if (error != cudaSuccess) return error;
  return launch(conv_grad_weight_total_kernel<T, A>, dim3(unsigned(ceil_div(count, int64_t(256)))), dim3(256), 0,
                stream, shape, static_cast<const A*>(partials), parts, count, stride_group, stride_depth,
                stride_channel, stride_y, stride_x, out);
}

#define INSTANTIATE(T, A)                                                                                           \
  template cudaError_t conv_grad_weight<T, A>(const ConvShape&, const ConvMap&, const T*, const ConvMap&, const T*, \
                                              int64_t, A*, int64_t, int64_t, int64_t, int64_t, int64_t, T*,         \
                                              cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
