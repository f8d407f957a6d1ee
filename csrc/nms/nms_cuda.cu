// Greedy NMS on the GPU, exactly, without a host sync and without N^2 memory.
//
// Boxes in order are taken in chunks of kChunk. One launch compares the boxes within every chunk (of a
// group of chunks) into bit masks. Then, chunk by chunk, one block resolves the chunk, and a grid of
// blocks compares what it kept with all later boxes. Each launch is for all images of a batch. So only kept boxes are
// ever compared with the rest (torchvision compares all pairs: 6 times more at 20000 boxes of which 3000 are kept), and
// the masks take 256 bytes a box of one group.
//
// Estimated on an H200: 5 us to resolve, 3 to suppress a chunk; 1000 boxes about 12 us and 20000 about
// 100 us, after the sort.
#include <limits>

#include "nms/nms_device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;  // boxes in one word of a mask
constexpr int kChunk = 2048, kWords = kChunk / kTile;
constexpr int kStep = 1024;  // boxes resolved together: a thread each
constexpr int kStepWords = kStep / kTile;
constexpr int kGroup = 64;  // chunks whose masks exist together: 33 MB; one an image where there are more images
constexpr int kKeptTile = 128, kSuppressSplit = 8;

using Word = unsigned long long;

template <class T>
struct Workspace {
  int n, capacity;      // boxes of an image, and of one chunk in the masks: whole words, no more than needed
  int group;            // chunks of an image whose masks exist together
  Box<T>* boxes;        // [B, N] by place
  Box<T>* kept_boxes;   // [B, capacity] of the last chunk resolved
  Word* masks;          // [B, group, words, capacity]: bit i of word w of box j: box w * 64 + i, earlier, suppresses it
  int* kept_places;     // [B, capacity]
  int* first;           // [B, N] by place: first place of the same class
  int* kept_count;      // [B] of kept_boxes
  int* kept_total;      // [B] of all chunks
  unsigned* removed;    // [B, ceil(N / 32)] by place
  unsigned char* keep;  // [B, N] by rank

  static size_t bytes(int64_t images, int64_t n) { return Workspace(nullptr, images, n).end_; }
  Workspace(void* memory, int64_t images, int64_t boxes_each) : n(int(boxes_each)) {
    const int chunks = ceil_div(n, kChunk), share = images > kGroup ? 1 : kGroup / int(images);
    capacity = chunks > 1 ? kChunk : ceil_div(n, kTile) * kTile;
    group = share < chunks ? share : chunks;
    char* at = static_cast<char*>(memory);
    const auto take = [&]<class P>(P*& pointer, int64_t count) {
      pointer = reinterpret_cast<P*>(at + end_);
      end_ += (size_t(images * count) * sizeof(P) + 15) / 16 * 16;
    };
    take(boxes, n);
    take(kept_boxes, capacity);
    take(masks, int64_t(group) * mask_words());
    take(kept_places, capacity);
    take(first, n);
    take(kept_count, 1);
    take(kept_total, 1);
    take(removed, ceil_div(n, 32));
    take(keep, n);
  }
  __host__ __device__ int words() const { return capacity / kTile; }
  __host__ __device__ int64_t mask_words() const { return int64_t(words()) * capacity; }  // of one chunk

  // The rows of one image.
  __device__ __forceinline__ Workspace of(int64_t image) const {
    Workspace row = *this;
    row.boxes += image * n;
    row.kept_boxes += image * capacity;
    row.masks += image * group * mask_words();
    row.kept_places += image * capacity;
    row.first += image * n;
    row.kept_count += image;
    row.kept_total += image;
    row.removed += image * ceil_div(n, 32);
    row.keep += image * n;
    return row;
  }

 private:
  size_t end_ = 0;
};

// A grid of `tiles` blocks for each image, along x, which alone has room for any number of images.
struct Place {
  int image, tile;
  __device__ __forceinline__ explicit Place(int tiles)
      : image(int(blockIdx.x) / tiles), tile(int(blockIdx.x) % tiles) {}
};

template <class T>
__global__ void __launch_bounds__(kThreads) nms_keys_kernel(const T* __restrict__ scores, int64_t images, int64_t n,
                                                            const NmsFilter filter, NmsKey<T>* __restrict__ keys) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= images * n) return;
  const T score = scores[i];
  const int64_t image = images == 1 ? 0 : i / n;
  keys[i] = filter.takes(image, n, i - image * n, score) ? nms_key(score) : kNoBox<T>;
}

__global__ void __launch_bounds__(kThreads)
    nms_gather_classes_kernel(const int64_t* __restrict__ values, const int64_t* __restrict__ order, int64_t images,
                              int64_t n, int64_t* __restrict__ out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < images * n) out[i] = values[(images == 1 ? 0 : i / n * n) + order[i]];
}

// Boxes by place, where each class begins, and nothing removed yet but what takes no part.
template <class T>
__global__ void __launch_bounds__(kThreads)
    nms_place_kernel(const NmsInput<T> in, const T* __restrict__ boxes, const Workspace<T> all) {
  const Place at(ceil_div(all.n, kThreads));
  const Workspace<T> w = all.of(at.image);
  const int place = at.tile * kThreads + threadIdx.x;
  const int64_t row = int64_t(at.image) * w.n;
  bool left_out = false;
  if (place < w.n) {
    const int64_t rank = in.by_class == nullptr ? place : in.by_class[row + place];
    left_out = in.keys != nullptr && in.keys[row + rank] == kNoBox<T>;
    const T* b = boxes + (row + in.by_score[row + rank]) * 4;
    w.boxes[place] = {b[0], b[1], b[2], b[3]};
    w.first[place] = class_begin(in.classes == nullptr ? nullptr : in.classes + row, place);
    if (place == 0) *w.kept_total = *w.kept_count = 0;
  }
  const unsigned removed = __ballot_sync(kFullWarp, left_out);
  if (place < w.n && place % 32 == 0) w.removed[place / 32] = removed;
}

// One word of mask for each of 64 boxes of a chunk. Grid: (image and chunk of the group, word, tile of boxes). Images
// that have kept `enough` need no more.
template <class T>
__global__ void __launch_bounds__(kTile)
    nms_mask_kernel(int first_chunk, int chunks, int enough, const Workspace<T> all, const Overlap<T> overlap) {
  const int word = blockIdx.y, tile = blockIdx.z;
  const Place at(chunks);
  const Workspace<T> w = all.of(at.image);
  const int chunk_begin = (first_chunk + at.tile) * kChunk;
  const int other = chunk_begin + word * kTile, place = chunk_begin + tile * kTile + static_cast<int>(threadIdx.x);
  if (word > tile || chunk_begin + tile * kTile >= w.n || *w.kept_total >= enough) return;  // the whole block
  __shared__ Box<T> boxes[kTile];
  __shared__ T areas[kTile];
  // Boxes of this word are all before those of a later tile, so they exist.
  if (other + static_cast<int>(threadIdx.x) < w.n) {
    const Box<T> b = w.boxes[other + threadIdx.x];
    boxes[threadIdx.x] = b;
    areas[threadIdx.x] = area(b);
  }
  __syncthreads();
  if (place >= w.n || (w.removed[place / 32] >> (place % 32) & 1)) return;  // nobody asks for those removed
  const Box<T> mine = w.boxes[place];
  const T my_area = area(mine);
  // Its parts, kept until the end, would be 4 registers more: fewer blocks on a multiprocessor.
  const int64_t out =
      opaque(((int64_t(at.image) * w.group + at.tile) * w.words() + word) * w.capacity + (place - chunk_begin));
  Word bits = 0;
  const int begin = max(w.first[place] - other, 0), end = min(place - other, kTile);
  for (int i = begin; i < end; ++i)
    if (overlap(boxes[i], areas[i], mine, my_area)) bits |= Word(1) << i;
  all.masks[out] = bits;
}

// One block resolves one chunk of an image, kStep boxes at a time. Greedy suppression is the only fixpoint of
// keep = not any(suppressor kept): starting from all, box j is right after at most j rounds, and 5 to
// 9 rounds settle every case seen.
template <class T>
__global__ void __launch_bounds__(kStep)
    nms_resolve_kernel(const NmsInput<T> in, int chunk, int in_group, int enough, const Workspace<T> all) {
  __shared__ Word kept[kWords];
  __shared__ int before[kWords];
  const Workspace<T> w = all.of(blockIdx.x);
  const int total = *w.kept_total;
  if (total >= enough) return;  // as kept_count of the chunk before says
  const int64_t* by_class = in.by_class == nullptr ? nullptr : in.by_class + int64_t(blockIdx.x) * w.n;
  const int thread = threadIdx.x, lane = thread % 32, chunk_begin = chunk * kChunk;
  const int boxes = min(kChunk, w.n - chunk_begin);
  const Word* masks = w.masks + in_group * w.mask_words();
  // 32-bit halves of the words, as ballots write them.
  unsigned* halves = reinterpret_cast<unsigned*>(kept);
  for (int step = 0; step < boxes; step += kStep) {
    const int local = step + thread, place = chunk_begin + local, step_word = step / kTile;
    bool candidate = local < boxes && !(w.removed[place / 32] >> (place % 32) & 1);
    const Word* mask = masks + local;
    for (int word = 0; word < step_word && candidate; ++word)
      if (kept[word] != 0) candidate = (mask[int64_t(word) * w.capacity] & kept[word]) == 0;
    Word suppressors[kStepWords];
#pragma unroll
    for (int i = 0; i < kStepWords; ++i)
      suppressors[i] = candidate && i <= thread / kTile ? mask[int64_t(step_word + i) * w.capacity] : 0;
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
    if (local < boxes) w.keep[by_class == nullptr ? place : by_class[place]] = keep;
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
    if (lane == 31) {
      *w.kept_total = total + count;
      *w.kept_count = total + count < enough ? count : 0;  // then no later box matters
    }
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
    nms_suppress_kernel(int begin, const Workspace<T> all, const Overlap<T> overlap) {
  __shared__ Box<T> boxes[kKeptTile];
  __shared__ T areas[kKeptTile];
  __shared__ int places[kKeptTile];
  const Place at(ceil_div(all.n - begin, kKeptTile));
  const Workspace<T> w = all.of(at.image);
  const int n = w.n, place = begin + at.tile * kKeptTile + threadIdx.x, kept = *w.kept_count;
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

// Indices of the kept boxes of an image by rank.
__global__ void __launch_bounds__(kStep)
    nms_compact_kernel(const unsigned char* __restrict__ all_keep, const int64_t* __restrict__ all_by_score, int n,
                       const NmsOutput out) {
  __shared__ int warp_counts[kStep / 32];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const unsigned char* keep = all_keep + int64_t(blockIdx.x) * n;
  const int64_t* by_score = all_by_score + int64_t(blockIdx.x) * n;
  int64_t* indices = out.indices + int64_t(blockIdx.x) * out.max_output;
  int64_t total = 0;
  // Flags beyond the chunk that filled the output were not written.
  for (int begin = 0; begin < n && total < out.max_output; begin += kStep) {
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
    const int64_t at = total + before + __popc(votes & ((1u << lane) - 1));
    if (mine && at < out.max_output) indices[at] = by_score[rank];
    total += __shfl_sync(kFullWarp, sum, 31);
    __syncthreads();
  }
  total = total < out.max_output ? total : out.max_output;
  if (thread == 0) out.counts[blockIdx.x] = total;
  if (out.padded)
    for (int64_t i = total + thread; i < out.max_output; i += kStep) indices[i] = -1;
}
static_assert(kStep == 1024, "a warp scans the counts of 32 warps");
static_assert(kChunk % kStep == 0, "a step is of one chunk");

}  // namespace

template <class T>
cudaError_t nms_keys(const T* scores, int64_t images, int64_t n, const NmsFilter& filter, NmsKey<T>* keys,
                     cudaStream_t stream) {
  return launch(nms_keys_kernel<T>, dim3(unsigned(ceil_div<int64_t>(images * n, kThreads))), dim3(kThreads), 0, stream,
                scores, images, n, filter, keys);
}

cudaError_t nms_gather_classes(const int64_t* values, const int64_t* order, int64_t images, int64_t n, int64_t* out,
                               cudaStream_t stream) {
  return launch(nms_gather_classes_kernel, dim3(unsigned(ceil_div<int64_t>(images * n, kThreads))), dim3(kThreads), 0,
                stream, values, order, images, n, out);
}

template <class T>
size_t nms_workspace(int64_t images, int64_t n) {
  return Workspace<T>::bytes(images, n);
}

template <class T>
cudaError_t nms(const NmsInput<T>& in, const T* boxes, void* workspace, const NmsOutput& out, cudaStream_t stream) {
  if (in.images == 0) return cudaSuccess;
  const int64_t most = std::numeric_limits<int>::max() - 2 * kChunk;
  // Blocks of a launch; the smallest tile is kKeptTile.
  if (in.n > most || in.images * ceil_div<int64_t>(in.n, kKeptTile) > most) return cudaErrorInvalidValue;
  const int n = int(in.n), images = int(in.images), chunks = ceil_div(n, kChunk);
  // Without classes, ranks are places: later chunks cannot add to an output that is full.
  const int enough = in.by_class == nullptr && out.max_output < n ? int(out.max_output) : n;
  const Workspace<T> w(workspace, in.images, in.n);
  const Overlap<T> overlap(in.iou_threshold);
  cudaError_t error =
      launch(nms_place_kernel<T>, dim3(images * ceil_div(n, kThreads)), dim3(kThreads), 0, stream, in, boxes, w);
  for (int chunk = 0; chunk < chunks && error == cudaSuccess; ++chunk) {
    const int in_group = chunk % w.group, group = chunks - chunk < w.group ? chunks - chunk : w.group;
    if (in_group == 0)
      error = launch(nms_mask_kernel<T>, dim3(images * group, w.words(), w.words()), dim3(kTile), 0, stream, chunk,
                     group, enough, w, overlap);
    if (error != cudaSuccess) break;
    error = launch(nms_resolve_kernel<T>, dim3(images), dim3(kStep), 0, stream, in, chunk, in_group, enough, w);
    const int begin = (chunk + 1) * kChunk;
    if (error == cudaSuccess && begin < n)
      error = launch(nms_suppress_kernel<T>, dim3(images * ceil_div(n - begin, kKeptTile), kSuppressSplit),
                     dim3(kKeptTile), 0, stream, begin, w, overlap);
  }
  if (error != cudaSuccess) return error;
  return launch(nms_compact_kernel, dim3(images), dim3(kStep), 0, stream, w.keep, in.by_score, n, out);
}

template cudaError_t nms_keys<float>(const float*, int64_t, int64_t, const NmsFilter&, int32_t*, cudaStream_t);
template cudaError_t nms_keys<double>(const double*, int64_t, int64_t, const NmsFilter&, int64_t*, cudaStream_t);
template size_t nms_workspace<float>(int64_t, int64_t);
template size_t nms_workspace<double>(int64_t, int64_t);
template cudaError_t nms<float>(const NmsInput<float>&, const float*, void*, const NmsOutput&, cudaStream_t);
template cudaError_t nms<double>(const NmsInput<double>&, const double*, void*, const NmsOutput&, cudaStream_t);

}  // namespace structops::cuda
