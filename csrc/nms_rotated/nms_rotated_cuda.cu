// Greedy NMS of rotated boxes on the GPU, exactly, without a host sync and without N^2 memory.
//
// The course of csrc/nms/nms_cuda.cu: boxes in order are taken in chunks of kChunk; one launch compares the boxes
// within every chunk (of a group of chunks) into bit masks; then, chunk by chunk, one block resolves the chunk, and a
// grid of blocks compares what it kept with all later boxes. A comparison here costs 200 double-precision operations,
// so it is done in two steps: a thread notes as bits whose bounds meet its own, in float32, and walks along the bits.
#include <limits>

#include "box_iou_rotated/rotated_boxes.cuh"
#include "nms/nms_device.cuh"
#include "nms_rotated/nms_rotated_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTile = 64;  // boxes in one word of a mask
constexpr int kChunk = 1024, kWords = kChunk / kTile;
constexpr int kGroup = 64;  // chunks whose masks exist together: 8 MB
constexpr int kSuppressSplit = 8;

using Word = unsigned long long;

struct Workspace {
  RotatedBox* boxes;      // [N] by place
  RotatedBounds* bounds;  // [N] by place
  Word* masks;            // [group, kWords, kChunk]: bit i of word w of box j: box w * 64 + i, earlier, suppresses it
  int* kept_places;       // [kChunk] of the last chunk resolved
  int* first;             // [N] by place: first place of the same class
  int* kept_count;        // [1]
  unsigned* removed;      // [ceil(N / 32)] by place

  static int64_t groups(int64_t n) {
    const int64_t chunks = ceil_div<int64_t>(n, kChunk);
    return chunks < kGroup ? chunks : kGroup;
  }
  static size_t bytes(int64_t n) { return Workspace(nullptr, n).end_; }
  Workspace(void* memory, int64_t n) {
    char* at = static_cast<char*>(memory);
    const auto take = [&]<class P>(P*& pointer, int64_t count) {
      pointer = reinterpret_cast<P*>(at + end_);
      end_ += (size_t(count) * sizeof(P) + 15) / 16 * 16;
    };
    take(boxes, n);
    take(bounds, n);
    take(masks, groups(n) * kWords * kChunk);
    take(kept_places, kChunk);
    take(first, n);
    take(kept_count, 1);
    take(removed, ceil_div<int64_t>(n, 32));
  }

 private:
  size_t end_ = 0;
};

// Boxes by place, where each class begins, and nothing removed yet.
template <class T>
__global__ void __launch_bounds__(kThreads)
    nms_rotated_place_kernel(const NmsRotatedInput in, const T* __restrict__ boxes, const Workspace w) {
  const int place = blockIdx.x * kThreads + threadIdx.x, n = static_cast<int>(in.n);
  if (place >= n) return;
  const RotatedBox box = read_box(boxes, in.by_score[in.by_class == nullptr ? place : in.by_class[place]]);
  w.boxes[place] = box;
  w.bounds[place] = bounds_of(box);
  if (place % 32 == 0) w.removed[place / 32] = 0;
  w.first[place] = class_begin(in.classes, place);
}

// The threshold as a T, and rotated_share's of it.
template <class T>
struct Limit {
  T threshold;
  float share;

  explicit Limit(double iou_threshold) : threshold(round_down<T>(iou_threshold)), share(rotated_share(iou_threshold)) {}
  __device__ __forceinline__ bool exceeded(const RotatedBox& a, const RotatedBox& b) const {
    return static_cast<T>(rotated_iou(a, b)) > threshold;
  }
};

// kTile boxes that every thread of a block holds its own against.
struct Tile {
  RotatedBox boxes[kTile];
  RotatedBounds bounds[kTile];
  float sides[kTile];

  __device__ __forceinline__ void load(int slot, const Workspace& w, int place) {
    boxes[slot] = w.boxes[place];
    bounds[slot] = w.bounds[place];
    sides[slot] = rotated_side(boxes[slot].area);
  }
  // Bits of boxes [begin, end) whose bounds meet, and whose area lets the IoU exceed the threshold.
  __device__ __forceinline__ Word near(int begin, int end, const RotatedBounds& around, float side, float share) const {
    Word bits = 0;
    for (int i = begin; i < end; ++i) {
      const bool excluded = sides[i] <= share * side || side <= share * sides[i];
      bits |= Word(meet(bounds[i], around) && !excluded) << i;
    }
    return bits;
  }
};

// One word of mask for each of 64 boxes of a chunk. Grid: (word, tile of boxes, chunk of the group). Told to fit 11
// blocks the compiler finds 77 registers; left alone it takes 79 and spills two.
template <class T>
__global__ void __launch_bounds__(kTile, 11)
    nms_rotated_mask_kernel(int n, int first_chunk, const Workspace w, const Limit<T> limit) {
  __shared__ Tile others;
  const int word = blockIdx.x, tile = blockIdx.y;
  const int chunk_begin = (first_chunk + static_cast<int>(blockIdx.z)) * kChunk;
  const int other = chunk_begin + word * kTile, place = chunk_begin + tile * kTile + static_cast<int>(threadIdx.x);
  if (word > tile || chunk_begin + tile * kTile >= n) return;  // the same for the whole block
  // Boxes of this word are all before those of a later tile, so they exist.
  if (other + static_cast<int>(threadIdx.x) < n) others.load(threadIdx.x, w, other + threadIdx.x);
  __syncthreads();
  if (place >= n) return;
  const int begin = max(w.first[place] - other, 0), end = min(place - other, kTile);
  const RotatedBox mine = w.boxes[place];
  Word near = others.near(begin, end, w.bounds[place], rotated_side(mine.area), limit.share), bits = 0;
  for (; near != 0; near &= near - 1) {
    const int i = __ffsll(static_cast<long long>(near)) - 1;
    if (limit.exceeded(others.boxes[i], mine)) bits |= Word(1) << i;
  }
  w.masks[(int64_t(blockIdx.z) * kWords + word) * kChunk + (place - chunk_begin)] = bits;
}

// One block resolves one chunk, a thread a box. Greedy suppression is the only fixpoint of keep = not any(suppressor
// kept): starting from all, box j is right after at most j rounds, and a few rounds settle every case seen.
__global__ void __launch_bounds__(kChunk)
    nms_rotated_resolve_kernel(const NmsRotatedInput in, int chunk, const Word* __restrict__ masks, const Workspace w,
                               bool* __restrict__ by_rank) {
  __shared__ Word kept[kWords];
  const int thread = threadIdx.x, lane = thread % 32, place = chunk * kChunk + thread, n = static_cast<int>(in.n);
  unsigned* halves = reinterpret_cast<unsigned*>(kept);  // 32-bit halves of the words, as ballots write them
  const bool candidate = place < n && !(w.removed[place / 32] >> (place % 32) & 1);
  Word suppressors[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i)
    suppressors[i] = candidate && i <= thread / kTile ? masks[int64_t(i) * kChunk + thread] : 0;
  bool keep = candidate;
  const unsigned vote = __ballot_sync(kFullWarp, keep);
  if (lane == 0) halves[thread / 32] = vote;
  __syncthreads();
  for (bool changed = true; changed;) {
    Word hit = 0;
#pragma unroll
    for (int i = 0; i < kWords; ++i) hit |= suppressors[i] & kept[i];
    const bool now = candidate && hit == 0;
    changed = __syncthreads_or(now != keep);  // and nobody reads kept any more
    keep = now;
    const unsigned ballot = __ballot_sync(kFullWarp, keep);
    if (lane == 0) halves[thread / 32] = ballot;
    __syncthreads();
  }
  if (place < n) by_rank[in.by_class == nullptr ? place : in.by_class[place]] = keep;
  // What was kept, in order, for nms_rotated_suppress_kernel.
  int before = 0, total = 0;
  for (int i = 0; i < kWords; ++i) {
    const int count = __popcll(kept[i]);
    before += i < thread / kTile ? count : 0;
    total += count;
  }
  if (keep) {
    const Word lower = (Word(1) << (thread % kTile)) - 1;
    w.kept_places[before + __popcll(kept[thread / kTile] & lower)] = place;
  }
  if (thread == 0) *w.kept_count = total;
}

// Boxes after the chunk against what it kept. Blocks along y share the kept boxes between them.
template <class T>
__global__ void __launch_bounds__(kThreads)
    nms_rotated_suppress_kernel(int n, int begin, const Workspace w, const Limit<T> limit) {
  __shared__ Tile others;
  __shared__ int places[kTile];
  const int thread = threadIdx.x, place = begin + static_cast<int>(blockIdx.x) * kThreads + thread;
  const int kept = *w.kept_count, first = place < n ? w.first[place] : n;
  // A warp is one word, as begin is a multiple of 32. Another block may be adding to it: whatever is read, the result
  // is the same.
  unsigned* word = w.removed + place / 32;
  const bool writer = thread % 32 == 0 && place < n;
  const unsigned removed = __shfl_sync(kFullWarp, writer ? atomicOr(word, 0u) : 0u, 0);
  // Only the class that runs across the end of the chunk goes on.
  bool open = place < n && first < begin && !(removed >> (place % 32) & 1);
  RotatedBox mine{};
  RotatedBounds around{};
  if (open) {
    mine = w.boxes[place];
    around = w.bounds[place];
  }
  const float side = rotated_side(mine.area);
  bool hit = false;
  for (int tile = static_cast<int>(blockIdx.y) * kTile; tile < kept; tile += kSuppressSplit * kTile) {
    if (!__syncthreads_or(open)) break;
    const int count = min(kTile, kept - tile);
    if (thread < count) {
      places[thread] = w.kept_places[tile + thread];
      others.load(thread, w, places[thread]);
    }
    __syncthreads();
    Word near = open ? others.near(0, count, around, side, limit.share) : 0;
    for (; near != 0 && open; near &= near - 1) {
      const int i = __ffsll(static_cast<long long>(near)) - 1;
      hit = places[i] >= first && limit.exceeded(others.boxes[i], mine);
      open = !hit;
    }
  }
  const unsigned hits = __ballot_sync(kFullWarp, hit);
  if (hits != 0 && writer) atomicOr(word, hits);
}
static_assert(kChunk % 32 == 0);

}  // namespace

size_t nms_rotated_workspace(int64_t n) { return Workspace::bytes(n); }

template <class T>
cudaError_t nms_rotated(const NmsRotatedInput& in, const T* boxes, void* workspace, bool* keep, cudaStream_t stream) {
  if (in.n > std::numeric_limits<int>::max() - 2 * kChunk) return cudaErrorInvalidValue;
  const int n = int(in.n), chunks = ceil_div(n, kChunk);
  const Workspace w(workspace, in.n);
  const Limit<T> limit(in.iou_threshold);
  cudaError_t error =
      launch(nms_rotated_place_kernel<T>, dim3(ceil_div(n, kThreads)), dim3(kThreads), 0, stream, in, boxes, w);
  for (int chunk = 0; chunk < chunks && error == cudaSuccess; ++chunk) {
    const int in_group = chunk % kGroup, group = chunks - chunk < kGroup ? chunks - chunk : kGroup;
    const int tiles = chunks == 1 ? ceil_div(n, kTile) : kWords;
    if (in_group == 0)
      error = launch(nms_rotated_mask_kernel<T>, dim3(tiles, tiles, group), dim3(kTile), 0, stream, n, chunk, w, limit);
    if (error != cudaSuccess) break;
    error = launch(nms_rotated_resolve_kernel, dim3(1), dim3(kChunk), 0, stream, in, chunk,
                   w.masks + int64_t(in_group) * kWords * kChunk, w, keep);
    const int begin = (chunk + 1) * kChunk;
    if (error == cudaSuccess && begin < n)
      error = launch(nms_rotated_suppress_kernel<T>, dim3(ceil_div(n - begin, kThreads), kSuppressSplit),
                     dim3(kThreads), 0, stream, n, begin, w, limit);
  }
  return error;
}

template cudaError_t nms_rotated<float>(const NmsRotatedInput&, const float*, void*, bool*, cudaStream_t);
template cudaError_t nms_rotated<double>(const NmsRotatedInput&, const double*, void*, bool*, cudaStream_t);

}  // namespace structops::cuda
