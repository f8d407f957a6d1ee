// The gradient of a transposed convolution's weight on the GPU: for every tap a matrix product of input channels and
// output channels over the pixels that meet in it. Channels of a pixel lie side by side in both maps (else conv_pack
// has turned them), so tiles are depth-major. Pixels are added up in parts, and the parts in order, so that the result
// does not depend on which block ends first.
#include <algorithm>

#include "conv_transpose2d/conv_epilogue.cuh"
#include "conv_transpose2d/conv_tile.cuh"

namespace structops::cuda {
namespace {

constexpr int64_t kLeastPixels = 512, kMostParts = 64, kBlocksWanted = 512;

template <class T, class A>
struct Args {
  ConvShape shape;  // depth: input channels, channels: output channels, of a group
  ConvMap from, to;
  const T* source;
  const T* grad;
  A* partials;
  int64_t parts, tiles;  // tiles of output channels
};

// Copies the tiles of one step after another: each has kDepth pixels. Where these lie is worked out a few steps ahead,
// by one thread a pixel.
template <class T>
class PixelLoader {
 public:
  using Tile = ConvTile<T, kTileChannels<T>, true>;
  static constexpr int K = kDepth<T>, kAhead = ConvStages<Tile>::kCount - 1, kSlots = 8;
  struct Table {
    int64_t from[kSlots][K], to[kSlots][K];  // offsets; -1: the pixels do not meet
  };

  __device__ __forceinline__ PixelLoader(const Args<T, acc_t<T>>& a, Table& table, int64_t begin, int64_t end,
                                         int64_t tap_y, int64_t tap_x, const T* source, int64_t depth, const T* grad,
                                         int64_t channels)
      : a_(a),
        table_(table),
        begin_(begin),
        end_(end),
        tap_y_(tap_y),
        tap_x_(tap_x),
        source_(source),
        grad_(grad),
        depth_(depth),
        channels_(channels) {
    for (int step = 0; step < kAhead; ++step) locate(step);
    __syncthreads();
  }

  // Channels past the last are zeros, which are added to sums that nobody reads.
  __device__ __forceinline__ void operator()(unsigned char* left, unsigned char* right) {
    const int slot = step_ % kSlots;
    copy<typename Tile::Left>(left, table_.from[slot], source_, depth_);
    copy<typename Tile::Right>(right, table_.to[slot], grad_, channels_);
    locate(step_ + kAhead);
    ++step_;
  }

 private:
  template <class Factor>
  static __device__ __forceinline__ void copy(unsigned char* to, const int64_t* offsets, const T* map,
                                              int64_t channels) {
#pragma unroll
    for (int i = 0; i < Factor::kBytes / kChunkBytes / kConvThreads; ++i) {
      const int at = int(threadIdx.x) + i * kConvThreads, line = at / Factor::kChunks, chunk = at % Factor::kChunks;
      const int64_t offset = offsets[line];
      const bool read = offset >= 0 && chunk * kPack<T> < channels;
      ptx::cp_async16(to + Factor::offset(line, chunk), read ? map + offset + chunk * kPack<T> : map, read);
    }
  }
  __device__ __forceinline__ void locate(int step) {
    if (threadIdx.x >= K) return;
    const ConvShape& s = a_.shape;
    const int64_t pixel = begin_ + int64_t(step) * K + threadIdx.x;
    const int64_t x = pixel % a_.from.width, rest = pixel / a_.from.width;
    const int64_t y = rest % a_.from.height, image = rest / a_.from.height;
    const int64_t oy = y * s.y.stride - s.y.padding + tap_y_ * s.y.dilation;
    const int64_t ox = x * s.x.stride - s.x.padding + tap_x_ * s.x.dilation;
    const bool met = pixel < end_ && oy >= 0 && oy < a_.to.height && ox >= 0 && ox < a_.to.width;
    const int slot = step % kSlots;
    table_.from[slot][threadIdx.x] =
        met ? image * a_.from.stride_n + y * a_.from.stride_y + x * a_.from.stride_x : int64_t(-1);
    table_.to[slot][threadIdx.x] =
        met ? image * a_.to.stride_n + oy * a_.to.stride_y + ox * a_.to.stride_x : int64_t(-1);
  }

  const Args<T, acc_t<T>>& a_;
  Table& table_;
  int64_t begin_, end_, tap_y_, tap_x_;
  const T *source_, *grad_;
  int64_t depth_, channels_;  // from the tile's first, to the last of the group
  int step_ = 0;
};

template <class T>
__global__ void __launch_bounds__(kConvThreads, 2) conv_grad_weight_kernel(const Args<T, acc_t<T>> a) {
  using Loader = PixelLoader<T>;
  using Tile = typename Loader::Tile;
  __shared__ typename Loader::Table table;
  auto* shared = dynamic_smem<unsigned char>();
  const ConvShape& s = a.shape;
  const int64_t row0 = blockIdx.x / a.tiles * Tile::kPositions, column0 = blockIdx.x % a.tiles * Tile::kChannels;
  const int64_t part = blockIdx.y, pixels = s.batch * a.from.height * a.from.width;
  const int64_t begin = pixels * part / a.parts, end = pixels * (part + 1) / a.parts;
  const int64_t depth = padded_depth<T>(s.depth), channels = padded_depth<T>(s.channels);
  for (int64_t z = blockIdx.z; z < s.y.kernel * s.x.kernel * s.groups; z += gridDim.z) {
    const int64_t group = z % s.groups, tap = z / s.groups;
    Tile tile;
    tile.clear();
    Loader load(a, table, begin, end, tap / s.x.kernel, tap % s.x.kernel, a.source + group * depth + row0, depth - row0,
                a.grad + group * channels + column0, channels - column0);
    ConvStages<Tile>::run(shared, int((end - begin + Loader::K - 1) / Loader::K), load, tile);
    auto* to = a.partials + ((part * s.y.kernel * s.x.kernel + tap) * s.groups + group) * s.depth * s.channels;
    tile.each([&](int row, int column, acc_t<T> sum) {
      if (row0 + row < s.depth && column0 + column < s.channels) to[(row0 + row) * s.channels + column0 + column] = sum;
    });
    __syncthreads();
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

// As many as give every multiprocessor of a large GPU a few blocks, whatever GPU this is: results must not depend on
// it.
int64_t conv_grad_weight_parts(const ConvShape& s, int64_t pixels) {
  const int64_t blocks =
      ceil_div(s.depth, int64_t(128)) * ceil_div(s.channels, int64_t(64)) * s.groups * s.y.kernel * s.x.kernel;
  const int64_t wanted = std::min(ceil_div(kBlocksWanted, blocks), kMostParts);
  return std::max<int64_t>(1, std::min(wanted, pixels / kLeastPixels));
}

template <class T, class A>
cudaError_t conv_grad_weight_partials(const ConvShape& shape, const ConvMap& from, const T* source, const ConvMap& to,
                                      const T* grad, int64_t parts, A* partials, cudaStream_t stream) {
  using Tile = typename PixelLoader<T>::Tile;
  const int64_t tiles = ceil_div(shape.channels, int64_t(Tile::kChannels));
  const int64_t blocks = ceil_div(shape.depth, int64_t(Tile::kPositions)) * tiles;
  const int64_t z = shape.y.kernel * shape.x.kernel * shape.groups;
  const Args<T, A> args{shape, from, to, source, grad, partials, parts, tiles};
  const dim3 grid(unsigned(blocks), unsigned(parts), unsigned(z < 65535 ? z : 65535));
  return launch(conv_grad_weight_kernel<T>, grid, dim3(kConvThreads), ConvStages<Tile>::kBytes, stream, args);
}

template <class T, class A>
cudaError_t conv_grad_weight_total(const ConvShape& shape, const A* partials, int64_t parts, int64_t stride_group,
                                   int64_t stride_depth, int64_t stride_channel, int64_t stride_y, int64_t stride_x,
                                   T* out, cudaStream_t stream) {
  const int64_t count = shape.y.kernel * shape.x.kernel * shape.groups * shape.depth * shape.channels;
  return launch(conv_grad_weight_total_kernel<T, A>, dim3(unsigned(ceil_div(count, int64_t(256)))), dim3(256), 0,
                stream, shape, partials, parts, count, stride_group, stride_depth, stride_channel, stride_y, stride_x,
                out);
}

#define INSTANTIATE(T, A)                                                                                           \
  template cudaError_t conv_grad_weight_partials<T, A>(const ConvShape&, const ConvMap&, const T*, const ConvMap&,  \
                                                       const T*, int64_t, A*, cudaStream_t);                        \
  template cudaError_t conv_grad_weight_total<T, A>(const ConvShape&, const A*, int64_t, int64_t, int64_t, int64_t, \
                                                    int64_t, int64_t, T*, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
