// The best k of many scores: a block holds a part of a segment in registers, finds the k-th by bisection of the keys,
// and keeps what comes before. What the parts of a segment keep is a shorter segment, to which the same is done, until
// one part is left; that one is sorted in shared memory.
//
// Bisection costs a count and a barrier a bit, at most as many as a key has, about 150 cycles each: 3 us. A histogram
// of digits (radix select) needs fewer steps, but logits crowd into a few values of the leading digit, and atomics on
// one word of shared memory run one after the other: 16384 of them take longer than the bisection.
//
// Estimated on an H200 for 200,000 scores of a level in 13 parts, k = 1000: 4 us for the parts, beside those of the
// other levels, 5 to merge and 3 to sort. Reading 1.07 MB of objectness takes 0.3 us, so it is all latency.
#include "common/cuda/device.cuh"
#include "common/cuda/top_k.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kKeyThreads = 256;
constexpr unsigned kAbsent = 0xffffffffu;  // an index; -1 in the results. Comes after every score, NaN too

template <class T>
struct KeyOf {
  using type = unsigned;
};
template <>
struct KeyOf<double> {
  using type = unsigned long long;
};
template <class T>
using key_t = typename KeyOf<T>::type;

// Scores in the registers of a thread: 32 registers of keys and indices of floats, 24 of doubles.
template <class Key>
constexpr int kHeld = sizeof(Key) == 4 ? 16 : 8;
template <class Key>
constexpr int kPart = kHeld<Key> * kThreads;
static_assert(kPart<unsigned long long> >= 4 * kMaxTopK, "a round leaves a quarter at most");

// Rising keys for falling scores, -0 equal to 0, NaN last: descending_key of common/cpu/radix_sort.h.
template <class Key, class A>
__device__ __forceinline__ Key falling_key(A score) {
  static_assert(sizeof(Key) == sizeof(A));
  constexpr Key kSign = Key(1) << (8 * sizeof(Key) - 1);
  if (score != score) return ~Key(0);
  if (score == A(0)) score = A(0);
  Key bits;
  memcpy(&bits, &score, sizeof(bits));
  return bits & kSign ? bits : ~bits & ~kSign;
}

template <class Key>
struct Ranked {
  Key key;
  unsigned index;
};
template <class Key>
__device__ __forceinline__ bool before(const Ranked<Key>& a, const Ranked<Key>& b) {
  return a.key < b.key || (a.key == b.key && a.index < b.index);
}

struct ScoreAxis {
  int64_t stride;  // elements
  int size, step;
};
struct ScoreSource {
  const void* data;
  int64_t image_stride, class_stride;
  ScoreAxis axis[3];  // innermost first
  int count;
};

// Segments as maps.
template <class T>
struct FromMaps {
  using Key = key_t<T>;
  ScoreSource map[kMaxScoreMaps];
  int maps, classes;
  acc_t<T> above;
  bool has_floor;

  __device__ __forceinline__ int count(int segment) const { return map[segment / classes % maps].count; }
  __device__ __forceinline__ Ranked<Key> read(int segment, int at) const {
    const ScoreSource& m = map[segment / classes % maps];
    const int64_t image = segment / classes / maps, of_class = segment % classes;
    const int row = at / m.axis[0].size, i = at - row * m.axis[0].size;
    const int o = row / m.axis[1].size, j = row - o * m.axis[1].size;
    const int64_t offset = image * m.image_stride + of_class * m.class_stride + i * m.axis[0].stride +
                           j * m.axis[1].stride + o * m.axis[2].stride;
    const acc_t<T> score = up(__ldg(static_cast<const T*>(m.data) + offset));
    if (has_floor && !(score > above)) return {~Key(0), kAbsent};
    return {falling_key<Key>(score), unsigned(i * m.axis[0].step + j * m.axis[1].step + o * m.axis[2].step)};
  }
};

// Segments as the parts of an earlier round left them: keys and indices [segments, count].
template <class K>
struct FromParts {
  using Key = K;
  const Key* keys;
  const unsigned* indices;
  int length;

  __device__ __forceinline__ int count(int) const { return length; }
  __device__ __forceinline__ Ranked<Key> read(int segment, int at) const {
    const int64_t i = int64_t(segment) * length + at;
    return {keys[i], indices[i]};
  }
};

// The sum over the block. One barrier: a second call may not reuse the words that the first still reads, a third may.
__device__ __forceinline__ int block_sum(int mine, int* words, int& turn) {
  const int lane = threadIdx.x % 32;
  turn ^= 32;
  mine = __reduce_add_sync(kFullWarp, mine);
  if (lane == 0) words[turn + threadIdx.x / 32] = mine;
  __syncthreads();
  return __reduce_add_sync(kFullWarp, lane < int(blockDim.x) / 32 ? words[turn + lane] : 0);
}

// The best k of a part, in any order at `out` (in shared or global memory), then absent ones. Every thread calls it.
template <class Key>
__device__ __forceinline__ void select_best(const Ranked<Key> (&held)[kHeld<Key>], int k, Key* keys_out,
                                            unsigned* indices_out) {
  __shared__ int words[64];
  __shared__ int kept;
  int turn = 0;
  const auto count = [&](const auto& wanted) {
    int mine = 0;
#pragma unroll
    for (int h = 0; h < kHeld<Key>; ++h) mine += held[h].index != kAbsent && wanted(held[h]);
    return block_sum(mine, words, turn);
  };
  if (threadIdx.x == 0) kept = 0;
  const int present = count([](const Ranked<Key>&) { return true; });
  // Those before `last` or equal to it are the best k.
  Ranked<Key> last{~Key(0), kAbsent};
  if (present > k) {
    // The smallest key that k scores reach. Any key that exactly k reach will do as well.
    Key key = 0;
    int reach = 0;
    for (int bit = 8 * sizeof(Key) - 1; bit >= 0 && reach != k; --bit) {
      const Key tried = key | ((Key(1) << bit) - 1);
      reach = count([&](const Ranked<Key>& r) { return r.key <= tried; });
      if (reach < k) key |= Key(1) << bit;
      last.key = reach == k ? tried : key;
    }
    if (reach != k) {  // ties at the k-th: the lower indices. No two are equal, so some index settles it
      unsigned index = 0;
      for (int bit = 31; bit >= 0 && reach != k; --bit) {
        const unsigned tried = index | ((1u << bit) - 1);
        reach = count([&](const Ranked<Key>& r) { return r.key < key || (r.key == key && r.index <= tried); });
        if (reach < k) index |= 1u << bit;
        last.index = reach == k ? tried : index;
      }
    }
  }
  int mine = 0;
#pragma unroll
  for (int h = 0; h < kHeld<Key>; ++h) mine += held[h].index != kAbsent && !before(last, held[h]);
  int at = mine;
  const int lane = threadIdx.x % 32;
  for (int o = 1; o < 32; o *= 2) {
    const int lower = __shfl_up_sync(kFullWarp, at, o);
    at += lane >= o ? lower : 0;
  }
  int begin = 0;  // a warp's place depends on who comes first: the order of a set that is still to be sorted
  if (lane == 31) begin = atomicAdd(&kept, at);
  at += __shfl_sync(kFullWarp, begin, 31) - mine;
#pragma unroll
  for (int h = 0; h < kHeld<Key>; ++h) {
    if (held[h].index == kAbsent || before(last, held[h])) continue;
    keys_out[at] = held[h].key;
    indices_out[at++] = held[h].index;
  }
  for (int i = (present < k ? present : k) + threadIdx.x; i < k; i += blockDim.x) {
    keys_out[i] = ~Key(0);
    indices_out[i] = kAbsent;
  }
}

// held[h]: scores of the part that begins at `begin`; neighbours in memory go to neighbouring threads.
template <class Source, class Key>
__device__ __forceinline__ void hold(const Source& source, int segment, int begin, Ranked<Key> (&held)[kHeld<Key>]) {
  const int count = source.count(segment);
#pragma unroll
  for (int h = 0; h < kHeld<Key>; ++h) {
    const int at = begin + h * blockDim.x + threadIdx.x;
    held[h] = at < count ? source.read(segment, at) : Ranked<Key>{~Key(0), kAbsent};
  }
}

// keys, indices [segments, parts, k]. Grid: (part, segment).
template <class Source>
__global__ void __launch_bounds__(kThreads)
    top_k_part_kernel(const __grid_constant__ Source source, int k, typename Source::Key* __restrict__ keys,
                      unsigned* __restrict__ indices) {
  using Key = typename Source::Key;
  const int segment = blockIdx.y, begin = blockIdx.x * blockDim.x * kHeld<Key>;
  const int64_t out = (int64_t(segment) * gridDim.x + blockIdx.x) * k;
  Ranked<Key> held[kHeld<Key>];
  hold(source, segment, begin, held);
  select_best(held, k, keys + out, indices + out);
}

// indices [segments, k], in order. Grid: (1, segment); `padded` is a power of two, k or more.
template <class Source>
__global__ void __launch_bounds__(kThreads)
    top_k_sort_kernel(const __grid_constant__ Source source, int k, int padded, int* __restrict__ indices) {
  using Key = typename Source::Key;
  const int segment = blockIdx.y;
  Key* const key = dynamic_smem<Key>();
  unsigned* const index = reinterpret_cast<unsigned*>(key + padded);
  Ranked<Key> held[kHeld<Key>];
  hold(source, segment, 0, held);
  for (int i = k + threadIdx.x; i < padded; i += blockDim.x) {
    key[i] = ~Key(0);
    index[i] = kAbsent;
  }
  select_best(held, k, key, index);
  // Bitonic: pairs of a step are apart, so one barrier a step is enough.
  for (int run = 2; run <= padded; run *= 2)
    for (int gap = run / 2; gap > 0; gap /= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < padded / 2; pair += blockDim.x) {
        const int low = 2 * pair - (pair & (gap - 1)), high = low + gap;
        const Ranked<Key> a{key[low], index[low]}, b{key[high], index[high]};
        const bool rising = (low & run) == 0;
        if (before(b, a) != rising) continue;
        key[low] = b.key, index[low] = b.index;
        key[high] = a.key, index[high] = a.index;
      }
    }
  __syncthreads();
  for (int i = threadIdx.x; i < k; i += blockDim.x) indices[int64_t(segment) * k + i] = static_cast<int>(index[i]);
}

// keys [segments, count] of one map. Grid: (block, segment).
template <class T, class SignedKey>
__global__ void __launch_bounds__(kKeyThreads)
    top_k_keys_kernel(const __grid_constant__ FromMaps<T> source, int map, SignedKey* __restrict__ keys) {
  const int image = blockIdx.y / source.classes, of_class = blockIdx.y - image * source.classes;
  const int segment = (image * source.maps + map) * source.classes + of_class, count = source.count(segment);
  const int at = blockIdx.x * kKeyThreads + threadIdx.x;
  if (at >= count) return;
  const Ranked<key_t<T>> score = source.read(segment, at);
  constexpr key_t<T> kSign = key_t<T>(1) << (8 * sizeof(SignedKey) - 1);
  keys[int64_t(blockIdx.y) * count + score.index] = static_cast<SignedKey>(score.key ^ kSign);
}

// Keys and indices of the parts of two rounds, which take turns.
template <class Key>
struct Workspace {
  Key* keys[2];
  unsigned* indices[2];
  size_t bytes;

  Workspace(void* memory, int64_t segments, int64_t longest, int64_t k) {
    char* at = static_cast<char*>(memory);
    bytes = 0;
    int64_t parts = ceil_div<int64_t>(longest, kPart<Key>);
    for (int round = 0; round < 2; ++round) {
      const size_t count = parts > 1 ? size_t(segments * parts * k) : 0;
      keys[round] = reinterpret_cast<Key*>(at + bytes);
      bytes += ceil_div<size_t>(count * sizeof(Key), 16) * 16;
      indices[round] = reinterpret_cast<unsigned*>(at + bytes);
      bytes += ceil_div<size_t>(count * sizeof(unsigned), 16) * 16;
      parts = ceil_div<int64_t>(parts * k, kPart<Key>);
    }
  }
};

template <class T>
FromMaps<T> from_maps(const TopK& p, const ScoreData& data, const int64_t* maps) {
  const void* const pointers[] = {data.m0, data.m1, data.m2, data.m3, data.m4, data.m5, data.m6, data.m7};
  FromMaps<T> source{.maps = int(p.maps), .classes = int(p.classes), .has_floor = p.above == p.above};
  source.above = static_cast<acc_t<T>>(p.above);
  if (source.above > p.above)  // above in double, for a score in float, is above the largest float not above it
    source.above = std::nextafter(source.above, -std::numeric_limits<acc_t<T>>::infinity());
  for (int64_t m = 0; m < p.maps; ++m) {
    const int64_t* n = maps + m * kScoreMapNumbers;
    const ScoreShape shape{{n[0], n[1], n[2]}, {n[3], n[4], n[5]}};
    const ScoreWalk walk(shape);
    ScoreSource& s = source.map[m];
    s.data = pointers[m];
    s.image_stride = n[6];
    s.class_stride = n[7];
    s.count = int(shape.count());
    for (int d = 0; d < 3; ++d) s.axis[d] = {walk.axis[d].stride, int(walk.axis[d].size), int(walk.axis[d].step)};
  }
  return source;
}

int64_t longest_map(const TopK& p, const int64_t* maps) {
  int64_t longest = 0;
  for (int64_t m = 0; m < p.maps; ++m) {
    const int64_t* size = maps + m * kScoreMapNumbers;
    const int64_t count = size[0] * size[1] * size[2];
    longest = count > longest ? count : longest;
  }
  return longest;
}

// Threads for segments of at most `longest` scores: small ones need no 1024.
template <class Key>
int threads_for(int64_t longest, int64_t padded) {
  int threads = 64;
  while (threads < kThreads && (threads * kHeld<Key> < longest || threads < padded / 2)) threads *= 2;
  return threads;
}

constexpr int64_t kMaxSegments = 65535;  // blocks along y

template <class Source>
cudaError_t finish(const Source& source, int64_t segments, int64_t longest, int64_t k, int* indices,
                   cudaStream_t stream) {
  using Key = typename Source::Key;
  int padded = 2;
  while (padded < k) padded *= 2;
  const int threads = threads_for<Key>(longest, padded);
  return launch(top_k_sort_kernel<Source>, dim3(1, unsigned(segments)), dim3(threads),
                padded * (sizeof(Key) + sizeof(unsigned)), stream, source, int(k), padded, indices);
}

}  // namespace

template <class T>
size_t top_k_workspace(const TopK& p, const int64_t* maps) {
  return Workspace<key_t<T>>(nullptr, p.images * p.maps * p.classes, longest_map(p, maps), p.k).bytes;
}

template <class T>
cudaError_t top_k(const TopK& p, const ScoreData& data, const int64_t* maps, void* workspace, int32_t* indices,
                  cudaStream_t stream) {
  using Key = key_t<T>;
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  const int64_t segments = p.images * p.maps * p.classes, longest = longest_map(p, maps);
  if (segments == 0 || p.k == 0) return cudaSuccess;
  if (p.k > kMaxTopK || p.maps > kMaxScoreMaps || segments > kMaxSegments || longest > kInt - kPart<Key>)
    return cudaErrorInvalidValue;
  const FromMaps<T> source = from_maps<T>(p, data, maps);
  int64_t parts = ceil_div<int64_t>(longest, kPart<Key>);
  if (parts <= 1) return finish(source, segments, longest, p.k, indices, stream);
  const Workspace<Key> w(workspace, segments, longest, p.k);
  cudaError_t error = launch(top_k_part_kernel<FromMaps<T>>, dim3(unsigned(parts), unsigned(segments)), dim3(kThreads),
                             0, stream, source, int(p.k), w.keys[0], w.indices[0]);
  for (int round = 0; error == cudaSuccess; round ^= 1) {
    const int64_t left = parts * p.k;
    const FromParts<Key> from{w.keys[round], w.indices[round], int(left)};
    parts = ceil_div<int64_t>(left, kPart<Key>);
    if (parts <= 1) return finish(from, segments, left, p.k, indices, stream);
    error = launch(top_k_part_kernel<FromParts<Key>>, dim3(unsigned(parts), unsigned(segments)), dim3(kThreads), 0,
                   stream, from, int(p.k), w.keys[round ^ 1], w.indices[round ^ 1]);
  }
  return error;
}

template <class T, class Key>
cudaError_t top_k_keys(const TopK& p, const ScoreData& data, const int64_t* maps, int64_t map, Key* keys,
                       cudaStream_t stream) {
  static_assert(sizeof(Key) == sizeof(key_t<T>));
  TopK all = p;
  all.above = kNoFloor;
  const FromMaps<T> source = from_maps<T>(all, data, maps);
  const int64_t segments = p.images * p.classes;
  if (p.maps > kMaxScoreMaps || segments > kMaxSegments) return cudaErrorInvalidValue;
  const unsigned blocks = unsigned(ceil_div<int64_t>(source.map[map].count, kKeyThreads));
  return launch(top_k_keys_kernel<T, Key>, dim3(blocks, unsigned(segments)), dim3(kKeyThreads), 0, stream, source,
                int(map), keys);
}

#define INSTANTIATE(T, Key)                                                                                    \
  template size_t top_k_workspace<T>(const TopK&, const int64_t*);                                             \
  template cudaError_t top_k<T>(const TopK&, const ScoreData&, const int64_t*, void*, int32_t*, cudaStream_t); \
  template cudaError_t top_k_keys<T, Key>(const TopK&, const ScoreData&, const int64_t*, int64_t, Key*, cudaStream_t);
INSTANTIATE(__half, int32_t)
INSTANTIATE(__nv_bfloat16, int32_t)
INSTANTIATE(float, int32_t)
INSTANTIATE(double, int64_t)
#undef INSTANTIATE

}  // namespace structops::cuda
