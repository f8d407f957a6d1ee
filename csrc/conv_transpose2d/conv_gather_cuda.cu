// Transposed convolution (and the gradient of its input) on the GPU: an implicit matrix product for each phase of the
// output.
//
// Outputs whose coordinates agree modulo the stride use the same taps; for a block's 128 of them and 64 channels, k
// runs over those taps and the channels of the pixels they lead to. Pixels come by 16-byte copies where channels are
// side by side, else by the elements, neighbouring threads reading neighbouring pixels. The sums go through shared
// memory, so that outputs are written 16 bytes at a time, and are finished there: bias, affine, residual and activation
// cost no pass of their own.
#include "common/cuda/ptx.cuh"
#include "conv_transpose2d/conv_epilogue.cuh"
#include "conv_transpose2d/conv_tile.cuh"

namespace structops::cuda {
namespace {

template <class T, class A>
struct Args {
  ConvShape shape;
  ConvMap from, to;
  const T* source;
  const T* packed;
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

// A position's pixel through any tap. kWide: four threads share a row of the tile, 16 bytes each, and a thread has
// several rows; else a thread has one row, or a part of one.
template <class T, bool kWide>
struct Rows {
  static constexpr int kTileRows = ConvTile<T>::kPositions;
  static constexpr int kCount = kWide ? kTileRows * kRowChunks / kConvThreads : 1;
  int64_t base[kCount];
  int y[kCount], x[kCount];
  bool used[kCount];

  static __device__ __forceinline__ int row(int i) {
    return kWide ? int(threadIdx.x) / kRowChunks + i * (kConvThreads / kRowChunks) : int(threadIdx.x) % kTileRows;
  }
  __device__ __forceinline__ void find(int64_t first, int64_t positions, const ConvPhase& phase, const ConvMap& from) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int64_t position = first + row(i), plane = phase.rows * phase.columns;
      used[i] = position < positions;
      const int64_t rest = used[i] ? position % plane : 0;
      base[i] = used[i] ? position / plane * from.stride_n : 0;
      y[i] = used[i] ? int(rest / phase.columns) : 0;
      x[i] = used[i] ? int(rest % phase.columns) : 0;
    }
  }
};

// Step of the loop over taps and depth.
struct Step {
  int64_t tap_y = 0, tap_x = 0, k = 0;
};

template <class T, bool kWide>
__device__ __forceinline__ void load_left(const Args<T, acc_t<T>>& a, const Rows<T, kWide>& rows, const Step& step,
                                          int64_t dy, int64_t dx, int64_t scale_y, int64_t scale_x, int64_t group,
                                          T* to) {
  constexpr int V = kPack<T>;
  const T* of_group = a.source + group * a.shape.depth * a.from.stride_c;
#pragma unroll
  for (int i = 0; i < Rows<T, kWide>::kCount; ++i) {
    const int64_t y = rows.y[i] * scale_y + dy, x = rows.x[i] * scale_x + dx;
    const bool inside = rows.used[i] && y >= 0 && y < a.from.height && x >= 0 && x < a.from.width;
    const T* pixel = inside ? of_group + rows.base[i] + y * a.from.stride_y + x * a.from.stride_x : of_group;
    T* row = to + rows.row(i) * kStride<T>;
    if constexpr (kWide) {
      const int chunk = threadIdx.x % kRowChunks;
      const int64_t k = step.k + chunk * V;
      const bool read = inside && k < a.shape.depth;
      ptx::cp_async16(row + chunk * V, read ? pixel + k : of_group, read);
    } else {
      constexpr int kParts = kConvThreads / Rows<T, kWide>::kTileRows;  // threads that share a row
#pragma unroll
      for (int chunk = threadIdx.x / Rows<T, kWide>::kTileRows; chunk < kRowChunks; chunk += kParts) {
        Pack<T, V> pack;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const int64_t k = step.k + chunk * V + v;
          pack.value[v] = inside && k < a.shape.depth ? pixel[k * a.from.stride_c] : down<T>(0);
        }
        *reinterpret_cast<Pack<T, V>*>(row + chunk * V) = pack;
      }
    }
  }
}

template <class T>
__device__ __forceinline__ void load_right(const Args<T, acc_t<T>>& a, int64_t tap, int64_t k0, int64_t group,
                                           int64_t channel, T* to) {
  constexpr int V = kPack<T>, kRows = ConvTile<T>::kChannels;
  const int64_t depth = padded_depth<T>(a.shape.depth);
  const T* panel = a.packed + (tap * a.shape.groups + group) * a.shape.channels * depth;
#pragma unroll
  for (int i = 0; i < kRows * kRowChunks / kConvThreads; ++i) {
    const int row = threadIdx.x / kRowChunks + i * (kConvThreads / kRowChunks), chunk = threadIdx.x % kRowChunks;
    const int64_t k = k0 + chunk * V;
    const bool read = channel + row < a.shape.channels && k < depth;
    ptx::cp_async16(to + row * kStride<T> + chunk * V, read ? panel + (channel + row) * depth + k : a.packed, read);
  }
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
      if (first + row >= positions || channel + c >= a.shape.channels) continue;
      const int64_t of_group = group * a.shape.channels + channel + c, at = offset(first + row) + of_group;
      Pack<T, V> residual{}, pack;
      if (a.epilogue.residual) residual = load_pack<T, V>(a.epilogue.residual + at);
#pragma unroll
      for (int v = 0; v < V; ++v)
        pack.value[v] = down<T>(finish(a.epilogue, sums[row * kRow + c + v], of_group + v, residual.value[v]));
      *reinterpret_cast<Pack<T, V>*>(a.out + at) = pack;
    }
    return;
  }
  const bool planar = a.to.stride_c != 1;  // neighbouring threads: neighbouring pixels, or channels
  for (int i = threadIdx.x; i < Tile::kPositions * Tile::kChannels; i += kConvThreads) {
    const int row = planar ? i % Tile::kPositions : i / Tile::kChannels;
    const int c = planar ? i / Tile::kPositions : i % Tile::kChannels;
    if (first + row >= positions || channel + c >= a.shape.channels) continue;
    const int64_t of_group = group * a.shape.channels + channel + c;
    const int64_t at = offset(first + row) + of_group * a.to.stride_c;
    const T residual = a.epilogue.residual ? a.epilogue.residual[at] : down<T>(0);
    a.out[at] = down<T>(finish(a.epilogue, sums[row * kRow + c], of_group, residual));
  }
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kConvThreads) conv_gather_kernel(const Args<T, acc_t<T>> a) {
  using Tile = ConvTile<T>;
  using Stages = ConvStages<T>;
  auto* shared = dynamic_smem<unsigned char>();
  const int64_t first = int64_t(blockIdx.x) * Tile::kPositions, channel = int64_t(blockIdx.y) * Tile::kChannels;
  for (int64_t z = blockIdx.z; z < a.phases * a.shape.groups; z += gridDim.z) {
    const int64_t group = z / a.phases;
    const ConvPhase phase(a.shape, a.to, z % a.phases);
    const int64_t positions = a.shape.batch * phase.rows * phase.columns;
    if (first >= positions) continue;
    const ConvTaps ys = conv_taps(a.shape.y, phase.y, a.shape.forward);
    const ConvTaps xs = conv_taps(a.shape.x, phase.x, a.shape.forward);
    Rows<T, kWide> rows;
    rows.find(first, positions, phase, a.from);
    Tile tile;
    tile.clear();
    const int64_t blocks = (a.shape.depth + kDepth<T> - 1) / kDepth<T>, steps = ys.count * xs.count * blocks;
    Step next;
    const auto load = [&](int64_t i) {
      if (i < steps) {
        const int stage = int(i % Stages::kCount);
        load_left<T, kWide>(a, rows, next, ys.offset(next.tap_y), xs.offset(next.tap_x), ys.scale, xs.scale, group,
                            Stages::left(shared, stage));
        load_right<T>(a, ys.tap(next.tap_y) * a.shape.x.kernel + xs.tap(next.tap_x), next.k, group, channel,
                      Stages::right(shared, stage));
        next.k += kDepth<T>;
        if (next.k >= a.shape.depth) {
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

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// 16 bytes of channels at a time: side by side, whole, and starting where the memory's 16 bytes do.
template <class T>
bool wide(const ConvMap& map, const T* data, int64_t channels) {
  return map.stride_c == 1 && channels % kPack<T> == 0 && map.stride_n % kPack<T> == 0 &&
         map.stride_y % kPack<T> == 0 && map.stride_x % kPack<T> == 0 && aligned(data);
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
  const bool wide_out = wide(to, out, shape.channels) && (!epilogue.residual || aligned(epilogue.residual));
  const Args<T, A> args{shape, from, to, source, packed, out, epilogue, phases, wide_out};
  const int64_t z = phases * shape.groups;
  const dim3 grid(unsigned(ceil_div(positions, int64_t(Tile::kPositions))),
                  unsigned(ceil_div(shape.channels, int64_t(Tile::kChannels))), unsigned(z < 65535 ? z : 65535));
  const auto kernel = wide(from, source, shape.depth) ? conv_gather_kernel<T, true> : conv_gather_kernel<T, false>;
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
