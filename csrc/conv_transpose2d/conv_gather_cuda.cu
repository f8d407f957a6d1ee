// Transposed convolution (and the gradient of its input) on the GPU: an implicit matrix product for each phase of the
// output.
//
// Outputs whose coordinates agree modulo the stride use the same taps; for a block's 128 of them and 64 channels, k
// runs over those taps and the channels of the pixels they lead to. Pixels come by 16-byte copies where channels are
// side by side, else by the elements, neighbouring threads reading neighbouring pixels. The sums go through shared
// memory, so that outputs are written 16 bytes at a time, and are finished there: bias, affine, residual and activation
// cost no pass of their own.
#include "conv_transpose2d/conv_load.cuh"

namespace structops::cuda {
namespace {

template <class T, class A>
struct Args {
  ConvSource<T> in;
  ConvMap to;
  T* out;
  ConvEpilogue<T, A> epilogue;
  int64_t phases;
  bool wide;  // outputs, and residuals, are written 16 bytes of channels at a time
};

constexpr int kSumPadding = 4;

template <class T>
constexpr size_t shared_bytes() {
  using Tile = ConvTile<T>;
  const size_t sums = size_t(Tile::kPositions) * (Tile::kChannels + kSumPadding) * sizeof(acc_t<T>);
  return (sums > ConvStages<T>::kBytes ? sums : ConvStages<T>::kBytes);
}

// The block's sums [positions][channels] in shared memory, finished and written.
template <class T>
__device__ __forceinline__ void put(const Args<T, acc_t<T>>& a, const acc_t<T>* sums, int64_t first, int64_t positions,
                                    int64_t channel, int64_t group, const ConvPhase& phase) {
  using Tile = ConvTile<T>;
  constexpr int kRow = Tile::kChannels + kSumPadding;
  const auto offset = [&](int64_t position) {
    const int64_t plane = phase.rows * phase.columns, rest = position % plane;
    return position / plane * a.to.stride_n + (rest / phase.columns * phase.step_y + phase.y) * a.to.stride_y +
           (rest % phase.columns * phase.step_x + phase.x) * a.to.stride_x;
  };
  if (a.wide) {
    constexpr int V = kPack<T>, kPacks = Tile::kChannels / V;
    for (int i = threadIdx.x; i < Tile::kPositions * kPacks; i += kConvThreads) {
      const int row = i / kPacks, c = i % kPacks * V;
      if (first + row >= positions || channel + c >= a.in.shape.channels) continue;
      const int64_t of_group = group * a.in.shape.channels + channel + c, at = offset(first + row) + of_group;
      Pack<T, V> residual{}, pack;
      if (a.epilogue.residual) residual = load_pack<T, V>(a.epilogue.residual + at);
#pragma unroll
      for (int v = 0; v < V; ++v)
        pack.value[v] = down<T>(finish(a.epilogue, sums[row * kRow + c + v], of_group + v, residual.value[v]));
      store_pack(a.out + at, pack);
    }
    return;
  }
  const bool planar = a.to.stride_c != 1;  // neighbouring threads: neighbouring pixels, or channels
  for (int i = threadIdx.x; i < Tile::kPositions * Tile::kChannels; i += kConvThreads) {
    const int row = planar ? i % Tile::kPositions : i / Tile::kChannels;
    const int c = planar ? i / Tile::kPositions : i % Tile::kChannels;
    if (first + row >= positions || channel + c >= a.in.shape.channels) continue;
    const int64_t of_group = group * a.in.shape.channels + channel + c;
    const int64_t at = offset(first + row) + of_group * a.to.stride_c;
    const T residual = a.epilogue.residual ? a.epilogue.residual[at] : down<T>(0);
    a.out[at] = down<T>(finish(a.epilogue, sums[row * kRow + c], of_group, residual));
  }
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kConvThreads, 2) conv_gather_kernel(const Args<T, acc_t<T>> a) {
  using Tile = ConvTile<T>;
  using Stages = ConvStages<T>;
  auto* shared = dynamic_smem<unsigned char>();
  const int64_t first = int64_t(blockIdx.x) * Tile::kPositions, channel = int64_t(blockIdx.y) * Tile::kChannels;
  for (int64_t z = blockIdx.z; z < a.phases * a.in.shape.groups; z += gridDim.z) {
    const int64_t group = z / a.phases;
    const ConvPhase phase(a.in.shape, a.to, z % a.phases);
    const int64_t positions = a.in.shape.batch * phase.rows * phase.columns;
    if (first >= positions) continue;
    const ConvTaps ys = conv_taps(a.in.shape.y, phase.y, a.in.shape.forward);
    const ConvTaps xs = conv_taps(a.in.shape.x, phase.x, a.in.shape.forward);
    ConvRows<T, kWide> rows;
    rows.find(first, positions, phase, a.in.from);
    Tile tile;
    tile.clear();
    const int64_t blocks = (a.in.shape.depth + kDepth<T> - 1) / kDepth<T>, steps = ys.count * xs.count * blocks;
    ConvStep next;
    const auto load = [&](int64_t i) {
      if (i < steps) {
        const int stage = int(i % Stages::kCount);
        load_pixels<T, kWide>(a.in, rows, next, ys.offset(next.tap_y), xs.offset(next.tap_x), ys.scale, xs.scale, group,
                              Stages::left(shared, stage));
        load_weights<T>(a.in, ys.tap(next.tap_y) * a.in.shape.x.kernel + xs.tap(next.tap_x), next.k, group, channel,
                        Stages::right(shared, stage));
        next.k += kDepth<T>;
        if (next.k >= a.in.shape.depth) {
          next.k = 0;
          if (++next.tap_x == xs.count) next.tap_x = 0, ++next.tap_y;
        }
      }
      ptx::cp_async_commit();
    };
    for (int i = 0; i < Stages::kCount - 1; ++i) load(i);
    for (int64_t i = 0; i < steps; ++i) {
      ptx::cp_async_wait<Stages::kCount - 2>();
      __syncthreads();  // this step's tiles are there, and nobody reads those that are loaded next
      load(i + Stages::kCount - 1);
      const int stage = int(i % Stages::kCount);
      tile.multiply(Stages::left(shared, stage), Stages::right(shared, stage));
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
    auto* sums = reinterpret_cast<acc_t<T>*>(shared);
    tile.each([&](int row, int c, acc_t<T> sum) { sums[row * (Tile::kChannels + kSumPadding) + c] = sum; });
    __syncthreads();
    put<T>(a, sums, first, positions, channel, group, phase);
    __syncthreads();
  }
}

template <class T>
__global__ void conv_pack_kernel(const ConvShape shape, const T* __restrict__ weight, int64_t stride_group,
                                 int64_t stride_depth, int64_t stride_channel, int64_t stride_y, int64_t stride_x,
                                 int64_t depth, int64_t count, T* __restrict__ packed) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t k = i % depth, channel = i / depth % shape.channels, rest = i / depth / shape.channels;
  const int64_t group = rest % shape.groups, tap = rest / shape.groups, y = tap / shape.x.kernel,
                x = tap % shape.x.kernel;
  packed[i] =
      k < shape.depth
          ? weight[group * stride_group + k * stride_depth + channel * stride_channel + y * stride_y + x * stride_x]
          : down<T>(0);
}

}  // namespace

template <class T>
cudaError_t conv_pack(const ConvShape& shape, const T* weight, int64_t stride_group, int64_t stride_depth,
                      int64_t stride_channel, int64_t stride_y, int64_t stride_x, T* packed, cudaStream_t stream) {
  const int64_t depth = padded_depth<T>(shape.depth);
  const int64_t count = shape.y.kernel * shape.x.kernel * shape.groups * shape.channels * depth;
  return launch(conv_pack_kernel<T>, dim3(unsigned(ceil_div(count, int64_t(256)))), dim3(256), 0, stream, shape, weight,
                stride_group, stride_depth, stride_channel, stride_y, stride_x, depth, count, packed);
}

template <class T, class A>
cudaError_t conv_gather(const ConvShape& shape, const ConvMap& from, const T* source, const T* packed,
                        const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, cudaStream_t stream) {
  using Tile = ConvTile<T>;
  const int64_t step_y = shape.forward ? shape.y.stride : 1, step_x = shape.forward ? shape.x.stride : 1;
  const int64_t positions = shape.batch * ceil_div(to.height, step_y) * ceil_div(to.width, step_x);
  // Phases past the output's size have nothing to do.
  const int64_t phases = shape.forward ? (step_y < to.height ? step_y : to.height) * step_x : 1;
  const bool wide_out = in_vectors(to, out, shape.channels) && (!epilogue.residual || aligned(epilogue.residual));
  const Args<T, A> args{{shape, from, source, packed}, to, out, epilogue, phases, wide_out};
  const int64_t z = phases * shape.groups;
  const dim3 grid(unsigned(ceil_div(positions, int64_t(Tile::kPositions))),
                  unsigned(ceil_div(shape.channels, int64_t(Tile::kChannels))), unsigned(z < 65535 ? z : 65535));
  const auto kernel =
      in_vectors(from, source, shape.depth) ? conv_gather_kernel<T, true> : conv_gather_kernel<T, false>;
  return launch(kernel, grid, dim3(kConvThreads), shared_bytes<T>(), stream, args);
}

#define INSTANTIATE(T, A)                                                                                          \
  template cudaError_t conv_pack<T>(const ConvShape&, const T*, int64_t, int64_t, int64_t, int64_t, int64_t, T*,   \
                                    cudaStream_t);                                                                 \
  template cudaError_t conv_gather<T, A>(const ConvShape&, const ConvMap&, const T*, const T*, const ConvMap&, T*, \
                                         const ConvEpilogue<T, A>&, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
