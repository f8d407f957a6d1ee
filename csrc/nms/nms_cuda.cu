// Greedy NMS on the GPU, exactly, without a host sync and without N^2 memory.
//
// Boxes in order are taken in chunks of kChunk. One launch compares the boxes within every chunk (of a
// group of chunks) into bit masks. Then, chunk by chunk, one block resolves the chunk, and a grid of
// blocks compares what it kept with all later boxes. So only kept boxes are ever compared with the
// rest (torchvision compares all pairs: 6 times more at 20000 boxes of which 3000 are kept), and the
// masks take 256 bytes a box of one group.
//
// Estimated on an H200: 5 us to resolve, 3 to suppress a chunk; 1000 boxes about 12 us and 20000 about
// 100 us, after the sort.
#include <cmath>
#include <limits>

#include "common/cuda/device.cuh"
#include "nms/nms_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;  // boxes in one word of a mask
constexpr int kChunk = 2048, kWords = kChunk / kTile;
constexpr int kStep = 1024;  // boxes resolved together: a thread each
constexpr int kStepWords = kStep / kTile;
constexpr int kGroup = 64;  // chunks whose masks exist together: 33 MB
constexpr int kKeptTile = 128, kSuppressSplit = 8;

using Word = unsigned long long;

template <class T>
struct alignas(16) Box {
  T x1, y1, x2, y2;
};

template <class T>
__device__ __forceinline__ T area(const Box<T>& b) {
  return mul_rn(sub_rn(b.x2, b.x1), sub_rn(b.y2, b.y1));
}

// Whether the rounded IoU exceeds the threshold, without dividing unless it is close. Where it is
// further away than the rounding of one product and one quotient, comparing with threshold * union
// gives the same answer; above and below are the threshold widened by that.
template <class T>
struct Overlap {
  T threshold, below, above;

  explicit Overlap(double iou_threshold) : threshold(static_cast<T>(iou_threshold)) {
    const T infinity = std::numeric_limits<T>::infinity();
    // iou > threshold in double, for an iou in T, is iou > the largest T not above the threshold.
    if (static_cast<double>(threshold) > iou_threshold) threshold = std::nextafter(threshold, -infinity);
    const bool ordinary = threshold > T(1e-6) && threshold < T(1e6);
    const T margin = 8 * std::numeric_limits<T>::epsilon();
    below = ordinary ? threshold * (1 - margin) : -infinity;
    above = ordinary ? threshold * (1 + margin) : infinity;
  }

  // a's area first, then b's: either order rounds alike.
  __device__ __forceinline__ bool operator()(const Box<T>& a, T area_a, const Box<T>& b, T area_b) const {
    // fmin and fmax pass over a NaN, but its box's area is NaN, and then every comparison fails.
    const T width = sub_rn(fmin(a.x2, b.x2), fmax(a.x1, b.x1)), height = sub_rn(fmin(a.y2, b.y2), fmax(a.y1, b.y1));
    if (!(width > T(0) && height > T(0))) return false;
    const T intersection = mul_rn(width, height);
    const T joint = sub_rn(add_rn(area_a, area_b), intersection);
    if (joint > T(1e-30)) {  // below, products lose digits
      if (intersection < mul_rn(joint, below)) return false;
      if (intersection > mul_rn(joint, above)) return true;
    }
    return div_rn(intersection, joint) > threshold;
  }
};

template <class T>
struct Workspace {
  Box<T>* boxes;        // [N] by place
  Box<T>* kept_boxes;   // [kChunk] of the last chunk resolved
  Word* masks;          // [group, kWords, kChunk]: bit i of word w of box j: box w * 64 + i, earlier, suppresses it
  int* kept_places;     // [kChunk]
  int* first;           // [N] by place: first place of the same class
  int* kept_count;      // [1]
  unsigned* removed;    // [ceil(N / 32)] by place
  unsigned char* keep;  // [N] by rank

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
    take(kept_boxes, kChunk);
    take(masks, groups(n) * kWords * kChunk);
    take(kept_places, kChunk);
    take(first, n);
    take(kept_count, 1);
    take(removed, ceil_div<int64_t>(n, 32));
    take(keep, n);
  }

 private:
  size_t end_ = 0;
};

template <class T, class Key>
__global__ void __launch_bounds__(kThreads)
    nms_keys_kernel(const T* __restrict__ scores, int64_t n, Key* __restrict__ keys) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const T score = scores[i] == T(0) ? T(0) : scores[i];
  Key bits;
  memcpy(&bits, &score, sizeof(bits));
  // As integers, floats rise with their bits when positive and fall when negative.
  const Key rising = bits ^ ((bits >> (8 * sizeof(Key) - 1)) & std::numeric_limits<Key>::max());
  keys[i] = score != score ? std::numeric_limits<Key>::max() : ~rising;
}

__global__ void __launch_bounds__(kThreads)
    nms_gather_classes_kernel(const int64_t* __restrict__ values, const int64_t* __restrict__ order, int64_t n,
                              int64_t* __restrict__ out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = values[order[i]];
}

// Boxes [N, 4] by place, where each class begins, and nothing removed yet.
template <class T>
__global__ void __launch_bounds__(kThreads)
    nms_place_kernel(const NmsInput in, const T* __restrict__ boxes, const Workspace<T> w) {
  const int place = blockIdx.x * kThreads + threadIdx.x, n = static_cast<int>(in.n);
  if (place >= n) return;
  const int64_t box = in.by_score[in.by_class == nullptr ? place : in.by_class[place]];
  const T* b = boxes + box * 4;
  w.boxes[place] = {b[0], b[1], b[2], b[3]};
  if (place % 32 == 0) w.removed[place / 32] = 0;
  int low = 0;
  if (in.classes != nullptr) {  // the first place whose class is not less
    const int64_t mine = in.classes[place];
    for (int high = place; low < high;) {
      const int middle = low + (high - low) / 2;
      if (in.classes[middle] < mine) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
  }
  w.first[place] = low;
}

// One word of mask for each of 64 boxes of a chunk. Grid: (word, tile of boxes, chunk of the group).
template <class T>
__global__ void __launch_bounds__(kTile)
    nms_mask_kernel(int n, int first_chunk, const Workspace<T> w, const Overlap<T> overlap) {
  const int word = blockIdx.x, tile = blockIdx.y;
  const int chunk_begin = (first_chunk + static_cast<int>(blockIdx.z)) * kChunk;
  const int other = chunk_begin + word * kTile, place = chunk_begin + tile * kTile + static_cast<int>(threadIdx.x);
  if (word > tile || chunk_begin + tile * kTile >= n) return;  // the same for the whole block
  __shared__ Box<T> boxes[kTile];
  __shared__ T areas[kTile];
  // Boxes of this word are all before those of a later tile, so they exist.
  if (other + static_cast<int>(threadIdx.x) < n) {
    const Box<T> b = w.boxes[other + threadIdx.x];
    boxes[threadIdx.x] = b;
    areas[threadIdx.x] = area(b);
  }
  __syncthreads();
  if (place >= n) return;
  const Box<T> mine = w.boxes[place];
  const T my_area = area(mine);
  Word bits = 0;
  const int begin = max(w.first[place] - other, 0), end = min(place - other, kTile);
  for (int i = begin; i < end; ++i)
    if (overlap(boxes[i], areas[i], mine, my_area)) bits |= Word(1) << i;
  w.masks[(int64_t(blockIdx.z) * kWords + word) * kChunk + (place - chunk_begin)] = bits;
}

// One block resolves one chunk, kStep boxes at a time. Greedy suppression is the only fixpoint of
// keep = not any(suppressor kept): starting from all, box j is right after at most j rounds, and 5 to
// 9 rounds settle every case seen.
template <class T>
__global__ void __launch_bounds__(kStep)
    nms_resolve_kernel(const NmsInput in, int chunk, const Word* __restrict__ masks, const Workspace<T> w) {
  __shared__ Word kept[kWords];
  __shared__ int before[kWords];
  const int thread = threadIdx.x, lane = thread % 32, chunk_begin = chunk * kChunk, n = static_cast<int>(in.n);
  const int boxes = min(kChunk, n - chunk_begin);
  // 32-bit halves of the words, as ballots write them.
  unsigned* halves = reinterpret_cast<unsigned*>(kept);
  for (int step = 0; step < boxes; step += kStep) {
    const int local = step + thread, place = chunk_begin + local, step_word = step / kTile;
    bool candidate = local < boxes && !(w.removed[place / 32] >> (place % 32) & 1);
    const Word* mask = masks + local;
    for (int word = 0; word < step_word && candidate; ++word)
      if (kept[word] != 0) candidate = (mask[int64_t(word) * kChunk] & kept[word]) == 0;
    Word suppressors[kStepWords];
#pragma unroll
    for (int i = 0; i < kStepWords; ++i)
      suppressors[i] = candidate && i <= thread / kTile ? mask[int64_t(step_word + i) * kChunk] : 0;
    bool keep = candidate;
    const unsigned vote = __ballot_sync(kFullWarp, keep);
    if (lane == 0) halves[local / 32] = vote;
    __syncthreads();
    for (bool changed = true; changed;) {
      Word hit = 0;
#pragma unroll
      for (int i = 0; i < kStepWords; ++i) hit |= suppressors[i] & kept[step_word + i];
      const bool now = candidate && hit == 0;
      changed = __syncthreads_or(now != keep);  // and nobody reads kept any more
      keep = now;
      const unsigned ballot = __ballot_sync(kFullWarp, keep);
      if (lane == 0) halves[local / 32] = ballot;
      __syncthreads();
    }
    if (local < boxes) w.keep[in.by_class == nullptr ? place : in.by_class[place]] = keep;
  }
  // What was kept, in order, for nms_suppress_kernel. Words past the last step were not written.
  const int words = (boxes + kStep - 1) / kStep * kStepWords;
  if (thread < 32) {
    int count = lane < words ? __popcll(kept[lane]) : 0;
    for (int o = 1; o < 32; o *= 2) {
      const int lower = __shfl_up_sync(kFullWarp, count, o);
      count += lane >= o ? lower : 0;
    }
    before[lane] = count - (lane < words ? __popcll(kept[lane]) : 0);
    if (lane == 31) *w.kept_count = count;
  }
  __syncthreads();
  for (int local = thread; local < boxes; local += kStep) {
    const Word word = kept[local / kTile], bit = Word(1) << (local % kTile);
    if ((word & bit) == 0) continue;
    const int at = before[local / kTile] + __popcll(word & (bit - 1));
    w.kept_places[at] = chunk_begin + local;
    w.kept_boxes[at] = w.boxes[chunk_begin + local];
  }
}
static_assert(kWords == 32, "one warp counts the words of a chunk");

// Boxes after the chunk against what it kept. Blocks along y share the kept boxes between them.
template <class T>
__global__ void __launch_bounds__(kKeptTile)
    nms_suppress_kernel(int n, int begin, const Workspace<T> w, const Overlap<T> overlap) {
  __shared__ Box<T> boxes[kKeptTile];
  __shared__ T areas[kKeptTile];
  __shared__ int places[kKeptTile];
  const int place = begin + blockIdx.x * kKeptTile + threadIdx.x, kept = *w.kept_count;
  const int first = place < n ? w.first[place] : n;
  // A warp is one word, as begin is a multiple of 32. Another block may be adding to it: whatever is
  // read, the result is the same.
  unsigned* word = w.removed + place / 32;
  const bool writer = threadIdx.x % 32 == 0 && place < n;
  const unsigned removed = __shfl_sync(kFullWarp, writer ? atomicOr(word, 0u) : 0u, 0);
  // Only the class that runs across the end of the chunk goes on.
  bool open = place < n && first < begin && !(removed >> (place % 32) & 1);
  Box<T> mine{};
  if (open) mine = w.boxes[place];
  const T my_area = area(mine);
  bool hit = false;
  for (int tile = blockIdx.y * kKeptTile; tile < kept; tile += kSuppressSplit * kKeptTile) {
    if (!__syncthreads_or(open)) break;
    const int i = tile + threadIdx.x;
    if (i < kept) {
      const Box<T> b = w.kept_boxes[i];
      boxes[threadIdx.x] = b;
      areas[threadIdx.x] = area(b);
      places[threadIdx.x] = w.kept_places[i];
    }
    __syncthreads();
    const int count = min(kKeptTile, kept - tile);
    for (int j = 0; j < count && open; ++j) {
      hit = places[j] >= first && overlap(boxes[j], areas[j], mine, my_area);
      open = !hit;
    }
  }
  const unsigned hits = __ballot_sync(kFullWarp, hit);
  if (hits != 0 && writer) atomicOr(word, hits);
}
static_assert(kChunk % kKeptTile == 0);

// Indices of the kept boxes by rank.
__global__ void __launch_bounds__(kStep)
    nms_compact_kernel(const unsigned char* __restrict__ keep, const int64_t* __restrict__ by_score, int n,
                       int64_t* __restrict__ kept, int64_t* __restrict__ count) {
  __shared__ int warp_counts[kStep / 32];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  int64_t total = 0;
  for (int begin = 0; begin < n; begin += kStep) {
    const int rank = begin + thread;
    const bool mine = rank < n && keep[rank] != 0;
    const unsigned votes = __ballot_sync(kFullWarp, mine);
    if (lane == 0) warp_counts[warp] = __popc(votes);
    __syncthreads();
    int sum = warp_counts[lane];
    for (int o = 1; o < 32; o *= 2) {
      const int lower = __shfl_up_sync(kFullWarp, sum, o);
      sum += lane >= o ? lower : 0;
    }
    const int before = __shfl_sync(kFullWarp, sum, warp) - __popc(votes);
    if (mine) kept[total + before + __popc(votes & ((1u << lane) - 1))] = by_score[rank];
    total += __shfl_sync(kFullWarp, sum, 31);
    __syncthreads();
  }
  if (thread == 0) *count = total;
}
static_assert(kStep == 1024, "a warp scans the counts of 32 warps");

}  // namespace

template <class T, class Key>
cudaError_t nms_keys(const T* scores, int64_t n, Key* keys, cudaStream_t stream) {
  return launch(nms_keys_kernel<T, Key>, dim3(unsigned(ceil_div<int64_t>(n, kThreads))), dim3(kThreads), 0, stream,
                scores, n, keys);
}

cudaError_t nms_gather_classes(const int64_t* values, const int64_t* order, int64_t n, int64_t* out,
                               cudaStream_t stream) {
  return launch(nms_gather_classes_kernel, dim3(unsigned(ceil_div<int64_t>(n, kThreads))), dim3(kThreads), 0, stream,
                values, order, n, out);
}

template <class T>
size_t nms_workspace(int64_t n) {
  return Workspace<T>::bytes(n);
}

template <class T>
cudaError_t nms(const NmsInput& in, const T* boxes, void* workspace, int64_t* kept, int64_t* count,
                cudaStream_t stream) {
  if (in.n > std::numeric_limits<int>::max() - 2 * kChunk) return cudaErrorInvalidValue;
  const int n = int(in.n), chunks = ceil_div(n, kChunk);
  const Workspace<T> w(workspace, in.n);
  const Overlap<T> overlap(in.iou_threshold);
  cudaError_t error = launch(nms_place_kernel<T>, dim3(ceil_div(n, kThreads)), dim3(kThreads), 0, stream, in, boxes, w);
  for (int chunk = 0; chunk < chunks && error == cudaSuccess; ++chunk) {
    const int in_group = chunk % kGroup, group = chunks - chunk < kGroup ? chunks - chunk : kGroup;
    const int tiles = chunks == 1 ? ceil_div(n, kTile) : kWords;
    if (in_group == 0)
      error = launch(nms_mask_kernel<T>, dim3(tiles, tiles, group), dim3(kTile), 0, stream, n, chunk, w, overlap);
    if (error != cudaSuccess) break;
    error = launch(nms_resolve_kernel<T>, dim3(1), dim3(kStep), 0, stream, in, chunk,
                   w.masks + int64_t(in_group) * kWords * kChunk, w);
    const int begin = (chunk + 1) * kChunk;
    if (error == cudaSuccess && begin < n)
      error = launch(nms_suppress_kernel<T>, dim3(ceil_div(n - begin, kKeptTile), kSuppressSplit), dim3(kKeptTile), 0,
                     stream, n, begin, w, overlap);
  }
  if (error != cudaSuccess) return error;
  return launch(nms_compact_kernel, dim3(1), dim3(kStep), 0, stream, w.keep, in.by_score, n, kept, count);
}

template cudaError_t nms_keys<float, int32_t>(const float*, int64_t, int32_t*, cudaStream_t);
template cudaError_t nms_keys<double, int64_t>(const double*, int64_t, int64_t*, cudaStream_t);
template size_t nms_workspace<float>(int64_t);
template size_t nms_workspace<double>(int64_t);
template cudaError_t nms<float>(const NmsInput&, const float*, void*, int64_t*, int64_t*, cudaStream_t);
template cudaError_t nms<double>(const NmsInput&, const double*, void*, int64_t*, int64_t*, cudaStream_t);

}  // namespace structops::cuda
