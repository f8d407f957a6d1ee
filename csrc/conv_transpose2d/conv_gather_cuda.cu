// Transposed convolution (and the gradient of its input) on the GPU: implicit matrix products, one for every run of
// phases of the outputs (conv_phases.cuh).
//
// A block has 128 positions and 64 or 128 lanes; a lane is an output channel of a phase. The sum runs over the taps and
// over the channels of the pixels they lead to, and all of it comes by 16-byte copies: maps whose channels are not side
// by side are turned first (conv_pack), which moves the smaller of the two maps once, where reading it in place would
// take two bytes at a time for every tap and block. The sums go through shared memory to be written in the order of the
// output, and are finished on the way: bias, affine, residual and activation cost no pass of their own.
#include <algorithm>

#include "conv_transpose2d/conv_epilogue.cuh"
#include "conv_transpose2d/conv_phases.cuh"
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
  int64_t depth;            // of the pixels of a group: a multiple of 16 bytes
  bool joined_y, joined_x;  // phases, in runs
  int64_t runs_y, runs_x;
  ConvRun first_y[2], first_x[2];  // the first runs: mostly all
  int64_t tiles;                   // of lanes
  bool planar, wide;               // wide: outputs, and residuals, move 16 bytes of channels at a time
  bool paired;                     // planar: two phases of a row at a time
};

constexpr int64_t kMostProducts = (int64_t(1) << 31) - 1;  // reached by strides of tens of thousands, dilated
constexpr int kSumPadding = 8, kSumGap = 4;
// Sums of a position that is written by packs: a gap after every 32, so that eight threads that read 16 bytes each, 32
// apart, meet in no bank; four rows that are stored together begin 8 banks apart.
template <int kChannels>
constexpr int kWideStride = (kChannels + kChannels / 32 * kSumGap + 7) / 16 * 16 + 8;
constexpr int kNowhere = -(1 << 30);  // twice of it is still no coordinate

// Where a position reads (at: its image, -1 for none; y, x: its pixel through the first tap), and where it or a lane
// writes. Coordinates of one axis fit an int.
struct Place {
  int64_t at;
  int y, x;
};

template <class T, int kChannels>
struct Tables {
  Place from[ConvTile<T, kChannels, false>::kPositions], to[ConvTile<T, kChannels, false>::kPositions];
  Place lane[kChannels];
  int64_t weight[kChannels];  // for the first tap; -1 for none
  ConvAffine<acc_t<T>> affine[kChannels];
};

template <class T, int kChannels>
__device__ __forceinline__ void fill(Tables<T, kChannels>& tables, const Args<T, acc_t<T>>& a, const ConvRun& y,
                                     const ConvRun& x, int64_t first, int64_t positions, int64_t first_lane,
                                     int64_t group) {
  const ConvShape& s = a.shape;
  if (threadIdx.x < ConvTile<T, kChannels, false>::kPositions) {
    const int64_t position = first + threadIdx.x, plane = y.count * x.count;
    const int64_t image = position / plane, rest = position % plane;
    const int64_t qy = y.first + rest / x.count, qx = x.first + rest % x.count;
    const bool used = position < positions;
    tables.from[threadIdx.x] = {used ? image * a.from.stride_n : int64_t(-1), int(qy * y.scale + y.offset),
                                int(qx * x.scale + x.offset)};
    const int64_t oy = qy * y.step + y.phase - y.padding, ox = qx * x.step + x.phase - x.padding;
    tables.to[threadIdx.x] = {image * a.to.stride_n + oy * a.to.stride_y + ox * a.to.stride_x,
                              used ? int(oy) : kNowhere, int(ox)};
  }
  for (int i = threadIdx.x; i < kChannels; i += kConvThreads) {
    // NHWC: [phase y][phase x][channel]; NCHW: [phase y][channel][phase x], as neighbours in memory are.
    const int64_t lane = first_lane + i, inner = a.planar ? x.phases : s.channels;
    const int64_t outer = a.planar ? s.channels : x.phases;
    const int64_t low = lane % inner, high = lane / inner % outer, py = lane / inner / outer;
    const int64_t channel = a.planar ? high : low, px = a.planar ? low : high;
    const bool used = py < y.phases;
    const int64_t of_all = group * s.channels + channel;
    tables.lane[i] = {of_all * a.to.stride_c + py * a.to.stride_y + px * a.to.stride_x, used ? int(py) : kNowhere,
                      int(px)};
    tables.weight[i] =
        used ? (((y.tap + py) * s.x.kernel + x.tap + px) * s.groups * s.channels + of_all) * a.depth : int64_t(-1);
    tables.affine[i] = used ? affine(a.epilogue, of_all) : ConvAffine<acc_t<T>>{};
  }
}

// Copies the tiles of one step after another: for every tap, the depth.
template <class T, int kChannels>
class Loader {
 public:
  using Tile = ConvTile<T, kChannels, false>;

  __device__ __forceinline__ Loader(const Args<T, acc_t<T>>& a, const Tables<T, kChannels>& tables, const ConvRun& y,
                                    const ConvRun& x, int64_t group)
      : a_(a), tables_(tables), y_(y), x_(x), source_(a.source + group * a.depth + chunk() * kPack<T>) {}

  __device__ __forceinline__ void operator()(unsigned char* left, unsigned char* right) {
    if (k_ == 0) take_tap();
    // A bit for each copy: tested with one instruction.
    const bool deep = k_ + chunk() * kPack<T> < a_.depth;
    const unsigned inside = deep ? inside_ : 0, used = deep ? used_ : 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      ptx::cp_async16(left + Tile::Left::offset(row(i), chunk()), pixel_[i], (inside & 1u << i) != 0);
      pixel_[i] += kDepth<T>;
    }
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      ptx::cp_async16(right + Tile::Right::offset(row(i), chunk()), weight_[i], (used & 1u << i) != 0);
      weight_[i] += kDepth<T>;
    }
    k_ += kDepth<T>;
    if (k_ >= a_.depth) k_ = 0;
  }

 private:
  static constexpr int kRowChunks = kRowBytes / kChunkBytes, kApart = kConvThreads / kRowChunks;
  static constexpr int kRows = Tile::kPositions / kApart, kLanes = Tile::kChannels / kApart;
  static __device__ __forceinline__ int chunk() { return threadIdx.x % kRowChunks; }
  static __device__ __forceinline__ int row(int i) { return int(threadIdx.x) / kRowChunks + i * kApart; }

  __device__ __forceinline__ void take_tap() {
    const int dy = int(tap_y_ * y_.offset_step), dx = int(tap_x_ * x_.offset_step);
    inside_ = used_ = 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Place place = tables_.from[row(i)];
      const int y = place.y + dy, x = place.x + dx;
      const bool inside = place.at >= 0 && y >= 0 && y < a_.from.height && x >= 0 && x < a_.from.width;
      pixel_[i] = source_ + (inside ? place.at + y * a_.from.stride_y + x * a_.from.stride_x : 0);
      inside_ |= unsigned(inside) << i;
    }
    const ConvShape& s = a_.shape;
    const int64_t of_tap =
        (tap_y_ * y_.tap_step * s.x.kernel + tap_x_ * x_.tap_step) * s.groups * s.channels * a_.depth;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      const int64_t at = tables_.weight[row(i)];
      weight_[i] = a_.packed + (at >= 0 ? at + of_tap : 0) + chunk() * kPack<T>;
      used_ |= unsigned(at >= 0) << i;
    }
    if (++tap_x_ == x_.taps) tap_x_ = 0, ++tap_y_;
  }

  const Args<T, acc_t<T>>& a_;
  const Tables<T, kChannels>& tables_;
  const ConvRun &y_, &x_;
  const T* source_;
  int tap_y_ = 0, tap_x_ = 0, k_ = 0;
  const T *pixel_[kRows], *weight_[kLanes];
  unsigned inside_ = 0, used_ = 0;  // a bit for each
};

// Sums, a row for each position, finished and written.
template <class T, int kChannels>
__device__ __forceinline__ void put(const Args<T, acc_t<T>>& a, const Tables<T, kChannels>& tables,
                                    const acc_t<T>* sums, int stride, int phases) {
  using A = acc_t<T>;
  constexpr int kPositions = ConvTile<T, kChannels, false>::kPositions;
  const auto inside = [&](const Place& row, const Place& lane) {
    return unsigned(row.y + lane.y) < unsigned(a.to.height) && unsigned(row.x + lane.x) < unsigned(a.to.width);
  };
  if (a.wide) {
    // A thread keeps its channels, and goes down the positions.
    constexpr int V = kPack<T>, kPacks = kChannels / V;
    static_assert(kConvThreads % kPacks == 0);
    const int c = int(threadIdx.x) % kPacks * V;
    const Place lane = tables.lane[c];
    ConvAffine<A> affine[V];
#pragma unroll
    for (int v = 0; v < V; ++v) affine[v] = tables.affine[c + v];
#pragma unroll 1
    for (int row = int(threadIdx.x) / kPacks; row < kPositions; row += kConvThreads / kPacks) {
      const Place position = tables.to[row];
      if (!inside(position, lane)) continue;
      const int64_t at = position.at + lane.at;
      Pack<T, V> residual;
      if (a.epilogue.residual) residual = load_pack<T, V>(a.epilogue.residual + at);
      const auto* packed = reinterpret_cast<const uint4*>(sums + row * stride + c + c / 32 * kSumGap);
      uint4 words[V / kPack<A>];
#pragma unroll
      for (int i = 0; i < V / kPack<A>; ++i) words[i] = packed[i];
      A sum[V];
      memcpy(sum, words, sizeof(sum));
      *reinterpret_cast<Pack<T, V>*>(a.out + at) = finish(a.epilogue, sum, [&](int v) { return affine[v]; }, residual);
    }
    return;
  }
  // Two sums at a time. Neighbouring threads: neighbouring channels, or pixels of all phases of a row, of which there
  // is a power of 2.
  const int shift = !a.planar ? __ffs(kChannels) - 2 : phases > 1 ? __ffs(phases) - 2 : 0;
  const bool together = a.paired && phases > 1;
#pragma unroll 1
  for (int i = threadIdx.x; i < kPositions * kChannels / 2; i += kConvThreads) {
    const int of_rows = i >> shift, row = of_rows % kPositions;
    const int c = ((of_rows / kPositions << shift) + (i & ((1 << shift) - 1))) * 2;
    const Place position = tables.to[row];
    bool used[2];
    int64_t at[2];
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const Place lane = tables.lane[c + v];
      used[v] = inside(position, lane);
      at[v] = position.at + lane.at;
    }
    Pack<T, 2> residual;
    if (a.epilogue.residual) {
#pragma unroll
      for (int v = 0; v < 2; ++v)
        if (used[v]) residual.value[v] = a.epilogue.residual[at[v]];
    }
    const auto sum = *reinterpret_cast<const Pack<A, 2>*>(sums + row * stride + c);
    const auto pack = finish(a.epilogue, sum.value, [&](int v) { return tables.affine[c + v]; }, residual);
    if (together) {
      if (used[0]) *reinterpret_cast<Pack<T, 2>*>(a.out + at[0]) = pack;
    } else {
#pragma unroll
      for (int v = 0; v < 2; ++v)
        if (used[v]) a.out[at[v]] = pack.value[v];
    }
  }
}

template <class T, int kChannels>
constexpr size_t shared_bytes() {
  using Tile = ConvTile<T, kChannels, false>;
  return std::max(
      ConvStages<Tile>::kBytes,
      size_t(Tile::kPositions) * std::max(kWideStride<kChannels>, kChannels + kSumPadding) * sizeof(acc_t<T>));
}

template <class T, int kChannels>
__global__ void __launch_bounds__(kConvThreads, sizeof(T) == 2 && kChannels == 64 ? 3 : 2)
    conv_gather_kernel(const Args<T, acc_t<T>> a) {
  using Tile = ConvTile<T, kChannels, false>;
  __shared__ Tables<T, kChannels> tables;
  __shared__ ConvRun ys, xs;
  auto* shared = dynamic_smem<unsigned char>();
  const int64_t first = blockIdx.x / a.tiles * Tile::kPositions, lane = blockIdx.x % a.tiles * kChannels;
  const int products = int(a.runs_y * a.runs_x * a.shape.groups), groups = int(a.shape.groups);
  for (int z = int(blockIdx.z); z < products; z += int(gridDim.z)) {
    const int group = z % groups, of_y = z / groups / int(a.runs_x), of_x = z / groups % int(a.runs_x);
    if (threadIdx.x == 0) {
      ys = of_y < 2 ? a.first_y[of_y] : conv_run(a.shape.y, a.to.height, a.shape.forward, a.joined_y, of_y);
      xs = of_x < 2 ? a.first_x[of_x] : conv_run(a.shape.x, a.to.width, a.shape.forward, a.joined_x, of_x);
    }
    __syncthreads();
    const int64_t positions = a.shape.batch * ys.count * xs.count;
    if (first < positions && lane < ys.phases * xs.phases * a.shape.channels) {
      fill(tables, a, ys, xs, first, positions, lane, group);
      __syncthreads();
      Tile tile;
      tile.clear();
      Loader<T, kChannels> load(a, tables, ys, xs, group);
      const int steps = int(ys.taps * xs.taps * ((a.depth + kDepth<T> - 1) / kDepth<T>));
      ConvStages<Tile>::run(shared, steps, load, tile);
      // In NCHW, threads of a warp read all phases of some positions, or a pair of channels: apart by as many, they
      // meet in no bank.
      const int phases = a.planar && kChannels % xs.phases == 0 ? int(xs.phases) : 1;
      const int stride = a.wide ? kWideStride<kChannels>
                                : kChannels + (a.planar && phases < kSumPadding ? std::max(phases, 2) : kSumPadding);
      const int gap = a.wide ? kSumGap : 0;
      auto* sums = reinterpret_cast<acc_t<T>*>(shared);
      if constexpr (sizeof(T) == 2)  // rows are an even number of floats apart
        tile.each_pair([&](int row, int c, float first, float second) {
          *reinterpret_cast<Pack<float, 2>*>(sums + row * stride + c + c / 32 * gap) = {first, second};
        });
      else
        tile.each([&](int row, int c, acc_t<T> sum) { sums[row * stride + c + c / 32 * gap] = sum; });
      __syncthreads();
      put(a, tables, sums, stride, phases);
    }
    __syncthreads();
  }
}

template <class T, int kChannels, class A>
cudaError_t start(Args<T, A>& a, int64_t positions, int64_t lanes, cudaStream_t stream) {
  a.tiles = ceil_div(lanes, int64_t(kChannels));
  const int64_t blocks = a.tiles * ceil_div(positions, int64_t(ConvTile<T, kChannels, false>::kPositions));
  const dim3 grid(unsigned(blocks), 1, unsigned(std::min<int64_t>(a.runs_y * a.runs_x * a.shape.groups, 65535)));
  return launch(conv_gather_kernel<T, kChannels>, grid, dim3(kConvThreads), shared_bytes<T, kChannels>(), stream, a);
}

}  // namespace

template <class T, class A>
cudaError_t conv_gather(const ConvShape& shape, const ConvMap& from, const T* source, const T* packed,
                        const ConvMap& to, T* out, const ConvEpilogue<T, A>& epilogue, int64_t multiprocessors,
                        cudaStream_t stream) {
  Args<T, A> a{shape, from, to, source, packed, out, epilogue};
  a.depth = padded_depth<T>(shape.depth);
  a.planar = to.stride_c != 1;
  a.wide = conv_wide(to, out, shape.channels) && (!epilogue.residual || aligned_16(epilogue.residual));
  // Joined phases have positions without outputs at the edges, unless padding is whole steps. That pays where a phase
  // alone has too few channels for a tile, and in NCHW, where its outputs lie apart.
  const auto joins = [&](const ConvSteps& s, int64_t outputs, bool wanted) {
    const bool exact = s.padding % s.stride == 0 && outputs % s.stride == 0;
    return shape.forward && s.dilation == 1 && s.stride <= 1024 && (exact || wanted);
  };
  const bool few = shape.channels < 64;
  a.joined_y = joins(shape.y, to.height, few);
  a.joined_x = joins(shape.x, to.width, few || a.planar);
  a.runs_y = conv_runs(shape.y, to.height, shape.forward, a.joined_y);
  a.runs_x = conv_runs(shape.x, to.width, shape.forward, a.joined_x);
  if (a.runs_y * a.runs_x * shape.groups > kMostProducts) return cudaErrorInvalidConfiguration;
  int64_t count_y = 0, count_x = 0, phases_y = 0, phases_x = 0;
  for (int i = 0; i < 2; ++i) {  // no run has more of either than these
    a.first_y[i] = conv_run(shape.y, to.height, shape.forward, a.joined_y, std::min<int64_t>(i, a.runs_y - 1));
    a.first_x[i] = conv_run(shape.x, to.width, shape.forward, a.joined_x, std::min<int64_t>(i, a.runs_x - 1));
    count_y = std::max(count_y, a.first_y[i].count);
    count_x = std::max(count_x, a.first_x[i].count);
    phases_y = std::max(phases_y, a.first_y[i].phases);
    phases_x = std::max(phases_x, a.first_x[i].phases);
  }
  // Pairs begin at whole pairs in memory, and neither half lies outside alone.
  const auto even = [](auto... numbers) { return ((numbers % 2 == 0) && ...); };
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % (2 * sizeof(T)) == 0; };
  a.paired = to.stride_x == 1 && even(to.stride_n, to.stride_c, to.stride_y, to.width, shape.x.stride) &&
             aligned(out) && aligned(epilogue.residual);
  for (const ConvRun& x : a.first_x) a.paired = a.paired && even(x.phases, x.phase - x.padding);
  const int64_t positions = shape.batch * count_y * count_x, lanes = phases_y * phases_x * shape.channels;
  if constexpr (sizeof(T) == 2) {
    // Larger tiles read less for each product, if they are filled, and if every multiprocessor gets two.
    const int64_t blocks = ceil_div(positions, int64_t(128)) * ceil_div(lanes, int64_t(128)) * a.runs_y * a.runs_x;
    const bool filled = lanes >= 512 || lanes % 128 == 0 || lanes % 128 > 64;
    if (filled && blocks * shape.groups >= 2 * multiprocessors) return start<T, 128>(a, positions, lanes, stream);
  }
  return start<T, kTileChannels<T>>(a, positions, lanes, stream);
}

#define INSTANTIATE(T, A)                                                                                          \
  template cudaError_t conv_gather<T, A>(const ConvShape&, const ConvMap&, const T*, const T*, const ConvMap&, T*, \
                                         const ConvEpilogue<T, A>&, int64_t, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
