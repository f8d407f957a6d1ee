// The mask head on the GPU: the product of a transposed convolution whose sums never leave the block.
//
// A block has 128 pixels and one of the four positions of an output in its pixel. It goes through the hidden channels
// 64 at a time: the sums of a tile go to shared memory, where each thread adds up one pixel's, after bias and ReLU,
// weighted for the class of its RoI. For 100 RoIs of 256 x 14 x 14 that is 10.3 GFLOP and 11 MB in bfloat16, where
// layer by layer it is 54 MB and 91 classes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "conv_transpose2d/conv_tile.cuh"
#include "mask_head_predict/mask_head_predict_cuda.h"

namespace structops::cuda {
namespace {

template <class T>
struct Args {
  MaskHeadShape shape;
  ConvMap from;
  const T* features;
  const T* packed;
  MaskLogits<acc_t<T>> logits;
  T* out;
};

template <class T>
using Tile = ConvTile<T, kTileChannels<T>, false>;
// A thread reads a row, and neighbours' rows begin in different banks. A warp stores every other of eight words in each
// of eight rows, which then share a bank two by two (with a padding of 1, four by four).
constexpr int kSumPadding = 5;

// Copies 64 bytes of depth of the block's pixels and of 64 hidden channels, one step after another.
template <class T>
class Loader {
 public:
  __device__ __forceinline__ Loader(const Args<T>& a, int64_t first, int64_t positions, int64_t phase)
      : a_(a), weight_(a.packed + phase * a.shape.hidden * a.shape.depth) {
    const int64_t plane = a.from.height * a.from.width;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int64_t position = first + row(i), rest = position % plane;
      used_[i] = position < positions;
      pixel_[i] = a.features;
      if (used_[i])
        pixel_[i] += position / plane * a.from.stride_n + rest / a.from.width * a.from.stride_y +
                     rest % a.from.width * a.from.stride_x;
    }
  }
  // Hidden channels from here on.
  __device__ __forceinline__ void at(int64_t channel) {
    channel_ = channel;
    k_ = 0;
  }
  __device__ __forceinline__ void operator()(unsigned char* left, unsigned char* right) {
    const int64_t k = k_ + chunk() * kPack<T>;
    const bool deep = k < a_.shape.depth;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      ptx::cp_async16(left + Tile<T>::Left::offset(row(i), chunk()), deep ? pixel_[i] + k : pixel_[i],
                      deep && used_[i]);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      const int64_t channel = channel_ + row(i);
      const bool read = deep && channel < a_.shape.hidden;
      ptx::cp_async16(right + Tile<T>::Right::offset(row(i), chunk()),
                      read ? weight_ + channel * a_.shape.depth + k : a_.packed, read);
    }
    k_ += kDepth<T>;
  }

 private:
  static constexpr int kRowChunks = kRowBytes / kChunkBytes, kApart = kConvThreads / kRowChunks;
  static constexpr int kRows = Tile<T>::kPositions / kApart, kLanes = Tile<T>::kChannels / kApart;
  static __device__ __forceinline__ int chunk() { return threadIdx.x % kRowChunks; }
  static __device__ __forceinline__ int row(int i) { return int(threadIdx.x) / kRowChunks + i * kApart; }

  const Args<T>& a_;
  const T* weight_;
  const T* pixel_[kRows];
  bool used_[kRows];
  int64_t channel_ = 0, k_ = 0;
};

template <class T>
__global__ void __launch_bounds__(kConvThreads, 2) mask_head_predict_kernel(const Args<T> a) {
  using A = acc_t<T>;
  constexpr int kChannels = Tile<T>::kChannels, kRow = kChannels + kSumPadding;
  auto* shared = dynamic_smem<unsigned char>();
  auto* sums = reinterpret_cast<A*>(shared);
  const int64_t height = a.from.height, width = a.from.width, positions = a.shape.rois * height * width;
  const int64_t first = int64_t(blockIdx.x) * Tile<T>::kPositions, position = first + threadIdx.x;
  const int64_t phase = blockIdx.y;
  const bool used = int(threadIdx.x) < Tile<T>::kPositions && position < positions;
  const int64_t label = used ? a.logits.labels[position / (height * width)] : 0;
  const bool known = used && label >= 0 && label < a.logits.classes;
  const A* of_class = a.logits.weight + (known ? label : 0) * a.shape.hidden;
  A logit = known && a.logits.class_bias ? a.logits.class_bias[label] : A(0);

  Loader<T> load(a, first, positions, phase);
  const int64_t steps = (a.shape.depth + kDepth<T> - 1) / kDepth<T>;
  for (int64_t channel = 0; channel < a.shape.hidden; channel += kChannels) {
    Tile<T> tile;
    tile.clear();
    load.at(channel);
    ConvStages<Tile<T>>::run(shared, steps, load, tile);
    tile.each([&](int row, int c, A sum) { sums[row * kRow + c] = sum; });
    __syncthreads();
    if (known)
      for (int c = 0; c < kChannels && channel + c < a.shape.hidden; ++c) {
        A x = sums[threadIdx.x * kRow + c] + (a.logits.bias ? a.logits.bias[channel + c] : A(0));
        x = x <= 0 ? A(0) : x;  // keeps NaN
        logit = fused(x, of_class[channel + c], logit);
      }
    __syncthreads();
  }
  if (!used) return;
  const int64_t plane = height * width, rest = position % plane;
  const int64_t row = position / plane * 2 * height + 2 * (rest / width) + phase / 2;
  const A probability = known ? 1 / (1 + std::exp(-logit)) : std::numeric_limits<A>::quiet_NaN();
  a.out[row * 2 * width + 2 * (rest % width) + phase % 2] = down<T>(probability);
}

}  // namespace

template <class T, class A>
cudaError_t mask_head_predict(const MaskHeadShape& shape, const ConvMap& from, const T* features, const T* packed,
                              const MaskLogits<A>& logits, T* out, cudaStream_t stream) {
  const int64_t positions = shape.rois * from.height * from.width;
  const size_t sums = size_t(Tile<T>::kPositions) * (Tile<T>::kChannels + kSumPadding) * sizeof(A);
  const dim3 grid(unsigned(ceil_div(positions, int64_t(Tile<T>::kPositions))), 4);
  return launch(mask_head_predict_kernel<T>, grid, dim3(kConvThreads), std::max(sums, ConvStages<Tile<T>>::kBytes),
                stream, Args<T>{shape, from, features, packed, logits, out});
}

#define INSTANTIATE(T, A)                                                                                \
  template cudaError_t mask_head_predict<T, A>(const MaskHeadShape&, const ConvMap&, const T*, const T*, \
                                               const MaskLogits<A>&, T*, cudaStream_t);
INSTANTIATE(__half, float)
INSTANTIATE(__nv_bfloat16, float)
INSTANTIATE(float, float)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace structops::cuda
