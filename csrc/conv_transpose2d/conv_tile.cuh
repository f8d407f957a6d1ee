// A block's product of two tiles in shared memory, [positions][k] x [channels][k], k side by side in both.
//
// A row is 64 bytes of k and 16 of padding: copies of 16 bytes are aligned, and the eight rows that a warp reads at a
// time fall into eight different groups of banks (20 words a row).
#pragma once
#include "common/cuda/ptx.cuh"

namespace structops::cuda {

constexpr int kConvThreads = 128;
constexpr int kRowBytes = 80, kChunkBytes = 16, kRowChunks = 4;

template <class T>
constexpr int kDepth = 64 / int(sizeof(T));  // k of a tile
template <class T>
constexpr int kStride = kRowBytes / int(sizeof(T));

// Halves, on tensor cores: a warp has 64 x 32 of the block's 128 x 64, in 4 x 4 products of 16 x 8.
template <class T>
struct ConvTile {
  static constexpr int kPositions = 128, kChannels = 64;
  float sums[4][4][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) sums[i][j][v] = 0;
  }

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, pair = lane % 4 * 2;
    const T* rows = a + (warp / 2 * 64 + group) * kStride<T> + pair;
    const T* columns = b + (warp % 2 * 32 + group) * kStride<T> + pair;
#pragma unroll
    for (int k = 0; k < kDepth<T>; k += 16) {
      unsigned right[4][2];
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int v = 0; v < 2; ++v) right[j][v] = word(columns + j * 8 * kStride<T> + k + v * 8);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        unsigned left[4];
#pragma unroll
        for (int v = 0; v < 4; ++v) left[v] = word(rows + (i * 16 + v % 2 * 8) * kStride<T> + k + v / 2 * 8);
#pragma unroll
        for (int j = 0; j < 4; ++j) ptx::mma_m16n8k16<T>(sums[i][j], left, right[j]);
      }
    }
  }

  // put(position, channel, sum) for each of this thread's sums
  template <class Put>
  __device__ __forceinline__ void each(const Put& put) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v)
          put(warp / 2 * 64 + i * 16 + lane / 4 + v / 2 * 8, warp % 2 * 32 + j * 8 + lane % 4 * 2 + v % 2,
              sums[i][j][v]);
  }

 private:
  static __device__ __forceinline__ unsigned word(const T* at) { return *reinterpret_cast<const unsigned*>(at); }
};

// Floats and doubles, by multiply-adds: a thread has kSide x kSide sums, kSide apart from the next thread's.
template <class A, int kSide, int kAcross>  // kAcross threads along channels
struct ScalarTile {
  static constexpr int kDown = kConvThreads / kAcross;
  static constexpr int kPositions = kSide * kDown, kChannels = kSide * kAcross;
  A sums[kSide][kSide];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) sums[i][j] = 0;
  }

  __device__ __forceinline__ void multiply(const A* a, const A* b) {
    const A* rows = a + threadIdx.x / kAcross * kStride<A>;
    const A* columns = b + threadIdx.x % kAcross * kStride<A>;
#pragma unroll
    for (int k = 0; k < kDepth<A>; ++k) {
      A right[kSide];
#pragma unroll
      for (int j = 0; j < kSide; ++j) right[j] = columns[j * kAcross * kStride<A> + k];
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
        const A left = rows[i * kDown * kStride<A> + k];
#pragma unroll
        for (int j = 0; j < kSide; ++j) sums[i][j] = fused(left, right[j], sums[i][j]);
      }
    }
  }

  template <class Put>
  __device__ __forceinline__ void each(const Put& put) const {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j)
        put(int(threadIdx.x) / kAcross + i * kDown, int(threadIdx.x) % kAcross + j * kAcross, sums[i][j]);
  }
};
template <>
struct ConvTile<float> : ScalarTile<float, 8, 8> {};
template <>
struct ConvTile<double> : ScalarTile<double, 4, 8> {};

// Tiles of both factors, in turn: one is multiplied while the next are on their way.
template <class T>
struct ConvStages {
  static constexpr int kCount = 3;
  static constexpr int kTileRows = ConvTile<T>::kPositions + ConvTile<T>::kChannels;
  static constexpr size_t kBytes = size_t(kCount) * kTileRows * kRowBytes;

  __device__ static __forceinline__ T* left(unsigned char* shared, int stage) {
    return reinterpret_cast<T*>(shared + stage * kTileRows * kRowBytes);
  }
  __device__ static __forceinline__ T* right(unsigned char* shared, int stage) {
    return left(shared, stage) + ConvTile<T>::kPositions * kStride<T>;
  }
};

}  // namespace structops::cuda
