// The last stage of a detector: boxes for slots, then, after torch has sorted their scores, NMS until D are found.
//
// No kernel depends on how many candidates there are but in time. NMS by a block for each image, in the order of
// scores: a detector wants the best 100 or 300 of thousands, so a candidate meets only what is kept already, of its
// class, and the block stops at the D-th. Finding all of them first, as nms does, takes several launches for every 2048
// slots, of which there are 91,000.
//
// Estimated on an H200 for 1000 proposals of 91 classes: 3 us each for sizes, exponentials and boxes, 30 to sort, and 4
// for each 256 candidates looked at.
#include "nms/nms_device.cuh"
#include "select_detections/select_detections_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256, kWords = kThreads / 32;

struct Candidate {
  int64_t row;  // in the image
  int label;    // -1: the slot is empty
};

__device__ __forceinline__ int64_t level_begin(const LevelBegins& b, int level) {
  const int64_t low = level < 2 ? (level == 0 ? b.l0 : b.l1) : (level == 2 ? b.l2 : b.l3);
  const int64_t high = level < 6 ? (level == 4 ? b.l4 : b.l5) : (level == 6 ? b.l6 : b.l7);
  return level < 4 ? low : high;
}

__device__ __forceinline__ Candidate candidate(const DetectionParams& p, const DetectionSlots& s, int64_t image,
                                               int64_t slot) {
  if (s.chosen == nullptr) return {slot / p.classes, static_cast<int>(slot % p.classes)};
  const int64_t chosen = s.chosen[image * s.count + slot];
  const int group = static_cast<int>(slot / s.limit);
  if (chosen < 0) return {0, -1};
  if (s.by_class) return {chosen, group};
  return {level_begin(s.begins, group) + chosen / p.classes, static_cast<int>(chosen % p.classes)};
}

// Emptied where the candidate is none: background, beyond the image's rows, or not above the threshold.
template <class T>
__device__ __forceinline__ Candidate eligible(const DetectionParams& p, const DetectionSlots& s,
                                              const DetectionHead<T>& head, int64_t image, int64_t slot, T& score) {
  Candidate c = candidate(p, s, image, slot);
  const int64_t rows = head.valid == nullptr ? p.rows : head.valid[image];
  if (c.label == p.background || c.row >= rows) c.label = -1;
  if (c.label < 0) return c;
  score = head.scores[(image * p.rows + c.row) * p.classes + c.label];
  if (!(score > static_cast<T>(p.score_thresh))) c.label = -1;
  return c;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    detection_mask_kernel(const DetectionParams p, const int64_t* __restrict__ valid, T* __restrict__ scores) {
  const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= p.images * p.rows) return;
  const int64_t image = row / p.rows;
  T* const score = scores + row * p.classes;
  if (p.background >= 0) score[p.background] = NAN;
  if (valid == nullptr || row - image * p.rows < valid[image]) return;
  for (int64_t label = 0; label < p.classes; ++label) score[label] = NAN;
}

template <class T>
__global__ void __launch_bounds__(kThreads) detection_sizes_kernel(const DetectionParams p, const DetectionSlots slots,
                                                                   const DetectionHead<T> head, T* __restrict__ codes) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.images * slots.count) return;
  const int64_t image = i / slots.count;
  T score = 0, width = 0, height = 0;
  const Candidate c = eligible(p, slots, head, image, i - image * slots.count, score);
  if (c.label >= 0) {
    const T* delta = head.deltas + delta_index(p, image * p.rows + c.row, c.label);
    width = size_code(p, delta[2], p.weight_width);
    height = size_code(p, delta[3], p.weight_height);
  }
  codes[2 * i] = width;
  codes[2 * i + 1] = height;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    detection_boxes_kernel(const DetectionParams p, const DetectionSlots slots, const DetectionHead<T> head,
                           const T* __restrict__ exponentials, BoxOf<T>* __restrict__ boxes,
                           NmsKey<T>* __restrict__ keys) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.images * slots.count) return;
  const int64_t image = i / slots.count;
  T score = 0;
  const Candidate c = eligible(p, slots, head, image, i - image * slots.count, score);
  BoxOf<T> box{};
  bool taken = c.label >= 0;
  if (taken) {
    const int64_t row = image * p.rows + c.row;
    const T* prior = head.proposals + 4 * (p.shared ? c.row : row);
    T ex = 0, ey = 0;
    if (exponentials != nullptr) ex = exponentials[2 * i], ey = exponentials[2 * i + 1];
    box = decode_clipped(p, head.deltas + delta_index(p, row, c.label), {prior[0], prior[1], prior[2], prior[3]}, ex,
                         ey, head.image_sizes + 2 * image);
    taken = large_enough(p, box);
  }
  boxes[i] = box;
  keys[i] = taken ? nms_key(score) : kNoBox<T>;
}

// Whether a bit is set below this thread's, counted; and all of them.
struct Rank {
  int before, all;
  __device__ __forceinline__ explicit Rank(const unsigned* words) : before(0), all(0) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      all += __popc(words[w]);
      before += w < warp ? __popc(words[w]) : w == warp ? __popc(words[w] & ((1u << lane) - 1)) : 0;
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    detection_nms_kernel(const DetectionParams p, const DetectionSlots slots, const DetectionHead<T> head,
                         const Box<T>* __restrict__ all_boxes, const DetectionOrder<T> order,
                         const DetectionOutput<T> out, const Overlap<T> overlap) {
  __shared__ Box<T> boxes[kThreads];
  __shared__ T areas[kThreads];
  __shared__ int labels[kThreads];
  __shared__ unsigned kept[kWords];
  const int thread = threadIdx.x, warp = thread / 32;
  const int64_t image = blockIdx.x, first = image * slots.count, first_out = image * p.detections_per_img;
  Box<T>* const out_boxes = reinterpret_cast<Box<T>*>(out.boxes) + first_out;
  int64_t found = 0;
  for (int64_t begin = 0; begin < slots.count && found < p.detections_per_img; begin += kThreads) {
    const int64_t place = begin + thread;
    bool open = place < slots.count && order.keys[first + place] != kNoBox<T>;
    if (!__syncthreads_or(open)) break;  // after the last candidate, all slots are empty
    Box<T> mine{};
    T score = 0;
    Candidate c{0, -1};
    if (open) {
      const int64_t slot = order.slots[first + place];
      mine = all_boxes[first + slot];
      c = eligible(p, slots, head, image, slot, score);
    }
    const T my_area = area(mine);
    // What was kept of earlier candidates.
    for (int64_t tile = 0; tile < found; tile += kThreads) {
      if (tile + thread < found) {
        boxes[thread] = out_boxes[tile + thread];
        areas[thread] = area(boxes[thread]);
        labels[thread] = static_cast<int>(out.labels[first_out + tile + thread]);
      }
      __syncthreads();
      const int count = found - tile < kThreads ? static_cast<int>(found - tile) : kThreads;
      for (int i = 0; i < count && open; ++i)
        open = labels[i] != c.label || !overlap(boxes[i], areas[i], mine, my_area);
      __syncthreads();
    }
    // These among each other: greedy suppression is the only fixpoint of keep = not any(suppressor kept).
    boxes[thread] = mine;
    areas[thread] = my_area;
    labels[thread] = open ? c.label : -1;
    __syncthreads();
    unsigned suppressors[kWords] = {};
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const int last = thread < 32 * w + 32 ? thread : 32 * w + 32;
      for (int i = 32 * w; i < last && open; ++i)
        if (labels[i] == c.label && overlap(boxes[i], areas[i], mine, my_area)) suppressors[w] |= 1u << (i - 32 * w);
    }
    bool keep = open;
    const unsigned vote = __ballot_sync(kFullWarp, keep);
    if (thread % 32 == 0) kept[warp] = vote;
    __syncthreads();
    for (bool changed = true; changed;) {
      unsigned hit = 0;
#pragma unroll
      for (int w = 0; w < kWords; ++w) hit |= suppressors[w] & kept[w];
      const bool now = open && hit == 0;
      changed = __syncthreads_or(now != keep);  // and nobody reads kept any more
      keep = now;
      const unsigned ballot = __ballot_sync(kFullWarp, keep);
      if (thread % 32 == 0) kept[warp] = ballot;
      __syncthreads();
    }
    const Rank rank(kept);
    if (keep && found + rank.before < p.detections_per_img) {
      const int64_t at = found + rank.before;
      out_boxes[at] = mine;
      out.scores[first_out + at] = score;
      out.labels[first_out + at] = c.label;
    }
    found = found + rank.all < p.detections_per_img ? found + rank.all : p.detections_per_img;
    __syncthreads();
  }
  for (int64_t d = found + thread; d < p.detections_per_img; d += kThreads) {
    out_boxes[d] = Box<T>{};
    out.scores[first_out + d] = T(0);
    out.labels[first_out + d] = -1;
  }
  if (thread == 0) out.counts[image] = found;
}

// Blocks of a thread for each slot.
dim3 slot_grid(const DetectionParams& p, const DetectionSlots& slots) {
  return dim3(unsigned(ceil_div<int64_t>(p.images * slots.count, kThreads)));
}

}  // namespace

template <class T>
cudaError_t detection_mask(const DetectionParams& p, const int64_t* valid, T* scores, cudaStream_t stream) {
  return launch(detection_mask_kernel<T>, dim3(unsigned(ceil_div<int64_t>(p.images * p.rows, kThreads))),
                dim3(kThreads), 0, stream, p, valid, scores);
}

template <class T>
cudaError_t detection_sizes(const DetectionParams& p, const DetectionSlots& slots, const DetectionHead<T>& head,
                            T* codes, cudaStream_t stream) {
  return launch(detection_sizes_kernel<T>, slot_grid(p, slots), dim3(kThreads), 0, stream, p, slots, head, codes);
}

template <class T>
cudaError_t detection_boxes(const DetectionParams& p, const DetectionSlots& slots, const DetectionHead<T>& head,
                            const T* exponentials, T* boxes, NmsKey<T>* keys, cudaStream_t stream) {
  return launch(detection_boxes_kernel<T>, slot_grid(p, slots), dim3(kThreads), 0, stream, p, slots, head, exponentials,
                reinterpret_cast<BoxOf<T>*>(boxes), keys);
}

template <class T>
cudaError_t detection_nms(const DetectionParams& p, const DetectionSlots& slots, const DetectionHead<T>& head,
                          const T* boxes, const DetectionOrder<T>& order, const DetectionOutput<T>& out,
                          cudaStream_t stream) {
  return launch(detection_nms_kernel<T>, dim3(unsigned(p.images)), dim3(kThreads), 0, stream, p, slots, head,
                reinterpret_cast<const Box<T>*>(boxes), order, out, Overlap<T>(p.nms_thresh));
}

#define INSTANTIATE(T)                                                                                                \
  template cudaError_t detection_mask<T>(const DetectionParams&, const int64_t*, T*, cudaStream_t);                   \
  template cudaError_t detection_sizes<T>(const DetectionParams&, const DetectionSlots&, const DetectionHead<T>&, T*, \
                                          cudaStream_t);                                                              \
  template cudaError_t detection_boxes<T>(const DetectionParams&, const DetectionSlots&, const DetectionHead<T>&,     \
                                          const T*, T*, NmsKey<T>*, cudaStream_t);                                    \
  template cudaError_t detection_nms<T>(const DetectionParams&, const DetectionSlots&, const DetectionHead<T>&,       \
                                        const T*, const DetectionOrder<T>&, const DetectionOutput<T>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
