// Pixels and packed weights on their way to shared memory.
#pragma once
#include "common/cuda/ptx.cuh"
#include "conv_transpose2d/conv_epilogue.cuh"
#include "conv_transpose2d/conv_tile.cuh"

namespace structops::cuda {

// What a product reads.
template <class T>
struct ConvSource {
  ConvShape shape;
  ConvMap from;
  const T* source;
  const T* packed;  // as conv_pack makes it
};

// A position's pixel through any tap. kWide: four threads share a row of the tile, 16 bytes each, and a thread has
// several rows; else a thread has one row, or a part of one.
template <class T, bool kWide>
struct ConvRows {
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
struct ConvStep {
  int64_t tap_y = 0, tap_x = 0, k = 0;
};

template <class T, bool kWide>
__device__ __forceinline__ void load_pixels(const ConvSource<T>& a, const ConvRows<T, kWide>& rows,
                                            const ConvStep& step, int64_t dy, int64_t dx, int64_t scale_y,
                                            int64_t scale_x, int64_t group, T* to) {
  constexpr int V = kPack<T>;
  const T* of_group = a.source + group * a.shape.depth * a.from.stride_c;
#pragma unroll
  for (int i = 0; i < ConvRows<T, kWide>::kCount; ++i) {
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
      constexpr int kParts = kConvThreads / ConvRows<T, kWide>::kTileRows;  // threads that share a row
#pragma unroll
      for (int chunk = threadIdx.x / ConvRows<T, kWide>::kTileRows; chunk < kRowChunks; chunk += kParts) {
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
__device__ __forceinline__ void load_weights(const ConvSource<T>& a, int64_t tap, int64_t k0, int64_t group,
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

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// 16 bytes of channels at a time: side by side, whole, and starting where the memory's 16 bytes do.
template <class T>
bool in_vectors(const ConvMap& map, const T* data, int64_t channels) {
  return map.stride_c == 1 && channels % kPack<T> == 0 && map.stride_n % kPack<T> == 0 &&
         map.stride_y % kPack<T> == 0 && map.stride_x % kPack<T> == 0 && aligned(data);
}

}  // namespace structops::cuda
