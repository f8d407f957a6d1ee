// A block's product of two tiles in shared memory, sums in registers.
//
// A tile is 64 bytes of depth for every row (a position, or a channel), in one of two orders: by rows, depth side by
// side, or by depth, rows side by side (depth-major: what two maps give a sum over pixels). It lies in lines of 16-byte
// chunks, which are exchanged within a line so that neither the copies into it nor the eight lines that a warp reads at
// a time meet in a bank.
#pragma once
#include "common/cuda/ptx.cuh"

namespace structops::cuda {

constexpr int kConvThreads = 128;
constexpr int kChunkBytes = 16, kRowBytes = 64;

template <class T>
constexpr int kDepth = kRowBytes / int(sizeof(T));  // of a tile

template <class T, int kRows, bool kDepthMajor>
struct ConvFactor {
  static constexpr int kBytes = kRows * kRowBytes;
  static constexpr int kLines = kDepthMajor ? kDepth<T> : kRows;
  static constexpr int kChunks = kBytes / kLines / kChunkBytes;  // of a line

  static __device__ __forceinline__ int offset(int line, int chunk) {
    return (line * kChunks + (chunk ^ (kDepthMajor ? line % 8 : line / 2 % 4))) * kChunkBytes;
  }
};

// Halves, on tensor cores: each of four warps has half of the positions and half of the channels, in products of
// 16 x 8. 64 x 64 sums a warp make a multiplication of every 16 bytes read, 64 x 32 of every 12.
template <class T, int kTileChannels, bool kDepthMajor>
struct ConvTile {
  static constexpr int kPositions = 128, kChannels = kTileChannels;
  static constexpr int kDown = 4, kAcross = kChannels / 16;
  using Left = ConvFactor<T, kPositions, kDepthMajor>;
  using Right = ConvFactor<T, kChannels, kDepthMajor>;
  float sums[kDown][kAcross][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int j = 0; j < kAcross; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) sums[i][j][v] = 0;
  }

  __device__ __forceinline__ void multiply(const unsigned char* a, const unsigned char* b) {
    const int line = threadIdx.x % 8, matrix = threadIdx.x % 32 / 8;
    // Of the four 8 x 8 matrices of a load: which rows of the product, and which half of the depth, this one is.
    const auto load = [&](auto factor, const unsigned char* from, int row, int k, int half_row, int half_k,
                          unsigned (&to)[4]) {
      using Factor = decltype(factor);
      const int at = kDepthMajor ? Factor::offset(k + half_k * 8 + line, row / 8 + half_row)
                                 : Factor::offset(row + half_row * 8 + line, k / 8 + half_k);
      ptx::ldmatrix_x4<kDepthMajor>(to, from + at);
    };
#pragma unroll
    for (int k = 0; k < kDepth<T>; k += 16) {
      unsigned right[kAcross / 2][4];
#pragma unroll
      for (int j = 0; j < kAcross / 2; ++j)
        load(Right{}, b, first_channel() + j * 16, k, matrix / 2, matrix % 2, right[j]);
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        unsigned left[4];
        load(Left{}, a, first_position() + i * 16, k, matrix % 2, matrix / 2, left);
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
          const unsigned column[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
          ptx::mma_m16n8k16<T>(sums[i][j], left, column);
        }
      }
    }
  }

  // put(position, channel, sum, that of the next channel) for each two of this thread's sums
  template <class Put>
  __device__ __forceinline__ void each_pair(const Put& put) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int j = 0; j < kAcross; ++j)
#pragma unroll
        for (int v = 0; v < 4; v += 2)
          put(first_position() + i * 16 + lane / 4 + v / 2 * 8, first_channel() + j * 8 + lane % 4 * 2, sums[i][j][v],
              sums[i][j][v + 1]);
  }
  // put(position, channel, sum) for each
  template <class Put>
  __device__ __forceinline__ void each(const Put& put) const {
    each_pair([&](int position, int channel, float first, float second) {
      put(position, channel, first);
      put(position, channel + 1, second);
    });
  }

 private:
  static __device__ __forceinline__ int first_position() { return int(threadIdx.x) / 64 * (kPositions / 2); }
  static __device__ __forceinline__ int first_channel() { return int(threadIdx.x) / 32 % 2 * (kChannels / 2); }
};

// Floats and doubles, by multiply-adds: a thread has kSide x kSide sums.
template <class A, int kSide, int kAcross, bool kDepthMajor>  // kAcross threads along channels
struct ScalarTile {
  static constexpr int kDown = kConvThreads / kAcross;
  static constexpr int kPositions = kSide * kDown, kChannels = kSide * kAcross;
  static constexpr int V = kPack<A>;
  using Left = ConvFactor<A, kPositions, kDepthMajor>;
  using Right = ConvFactor<A, kChannels, kDepthMajor>;
  A sums[kSide][kSide];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) sums[i][j] = 0;
  }

  __device__ __forceinline__ void multiply(const unsigned char* a, const unsigned char* b) {
    if constexpr (kDepthMajor) {
#pragma unroll 4
      for (int k = 0; k < kDepth<A>; ++k) {
        Pack<A, V> left[kSide / V], right[kSide / V];
#pragma unroll
        for (int i = 0; i < kSide / V; ++i) {
          left[i] = pack(a + Left::offset(k, i * kDown + down()));
          right[i] = pack(b + Right::offset(k, i * kAcross + across()));
        }
#pragma unroll
        for (int i = 0; i < kSide; ++i)
#pragma unroll
          for (int j = 0; j < kSide; ++j)
            sums[i][j] = fused(left[i / V].value[i % V], right[j / V].value[j % V], sums[i][j]);
      }
    } else {
#pragma unroll 1  // one sum's operands at a time: more would not fit the registers
      for (int chunk = 0; chunk < kDepth<A> / V; ++chunk) {
        Pack<A, V> right[kSide];
#pragma unroll
        for (int j = 0; j < kSide; ++j) right[j] = pack(b + Right::offset(j * kAcross + across(), chunk));
#pragma unroll
        for (int i = 0; i < kSide; ++i) {
          const Pack<A, V> left = pack(a + Left::offset(i * kDown + down(), chunk));
#pragma unroll
          for (int v = 0; v < V; ++v)
#pragma unroll
            for (int j = 0; j < kSide; ++j) sums[i][j] = fused(left.value[v], right[j].value[v], sums[i][j]);
        }
      }
    }
  }

  template <class Put>
  __device__ __forceinline__ void each(const Put& put) const {
#pragma unroll
    for (int i = 0; i < kSide; ++i)
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        if constexpr (kDepthMajor)
          put((i / V * kDown + down()) * V + i % V, (j / V * kAcross + across()) * V + j % V, sums[i][j]);
        else
          put(i * kDown + down(), j * kAcross + across(), sums[i][j]);
      }
  }

 private:
  static __device__ __forceinline__ int down() { return int(threadIdx.x) / kAcross; }
  static __device__ __forceinline__ int across() { return int(threadIdx.x) % kAcross; }
  static __device__ __forceinline__ Pack<A, V> pack(const unsigned char* at) {
    return *reinterpret_cast<const Pack<A, V>*>(at);
  }
};
template <bool kDepthMajor>
struct ConvTile<float, 64, kDepthMajor> : ScalarTile<float, 8, 8, kDepthMajor> {};
template <bool kDepthMajor>
struct ConvTile<double, 32, kDepthMajor> : ScalarTile<double, 4, 8, kDepthMajor> {};

// Channels of a tile, where one size is enough.
template <class T>
constexpr int kTileChannels = sizeof(T) == 8 ? 32 : 64;

// Tiles of both factors in turn: one pair is multiplied while the next are on their way.
template <class Tile>
struct ConvStages {
  static constexpr int kCount = 4;
  static constexpr size_t kStageBytes = Tile::Left::kBytes + Tile::Right::kBytes;
  static constexpr size_t kBytes = kCount * kStageBytes;

  // load(left, right, step) issues the copies of one step; then all of them are multiplied.
  template <class Load>
  static __device__ __forceinline__ void run(unsigned char* shared, int steps, Load& load, Tile& tile) {
    const auto left = [&](int stage) { return shared + stage * int(kStageBytes); };
    const auto right = [&](int stage) { return shared + stage * int(kStageBytes) + Tile::Left::kBytes; };
    const auto issue = [&](int step, int stage) {
      if (step < steps) load(left(stage), right(stage));
      ptx::cp_async_commit();
    };
    for (int i = 0; i < kCount - 1; ++i) issue(i, i);
    int stage = 0;
    for (int i = 0; i < steps; ++i) {
      ptx::cp_async_wait<kCount - 2>();
      __syncthreads();  // this step's tiles are there, and nobody reads those that are loaded next
      issue(i + kCount - 1, (stage + kCount - 1) % kCount);
      tile.multiply(left(stage), right(stage));
      stage = (stage + 1) % kCount;
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
  }
};

}  // namespace structops::cuda
