// Matching on the GPU: a thread for each anchor, ground truths in shared memory, and no matrix.
//
// Low-quality matches need each ground truth's best IoU over all anchors first, and then the anchors that attain it. A
// maximum of integers does not depend on who comes first, so atomics keep it deterministic. The second kernel computes
// again only the pairs of a block and a ground truth whose best lies in that block.
//
// Estimated on an H100 for 268,569 anchors and 50 ground truths: 13.4 million pairs, most of which end after 9
// instructions because they do not meet: 4 us, of which memory would take 3.
#include <cstring>

#include "common/cuda/device.cuh"
#include "match_boxes/match_boxes_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;    // anchors of a block
constexpr int kTile = kThreads;  // ground truths in shared memory: a thread loads one
constexpr int64_t kMaxGridY = 65535;

template <class T>
struct alignas(16) Box {
  T x1, y1, x2, y2;
};

template <class T>
__device__ __forceinline__ Box<T> load_box(const T* b) {
  return {b[0], b[1], b[2], b[3]};
}
template <class T>
__device__ __forceinline__ T area(const Box<T>& b) {
  return mul_rn(sub_rn(b.x2, b.x1), sub_rn(b.y2, b.y1));
}

// In the order of torchvision's roundings. A NaN coordinate makes its box's area NaN, and so the IoU, though fmin and
// fmax pass over it.
template <class T>
__device__ __forceinline__ T iou(const Box<T>& t, T area_t, const Box<T>& a, T area_a) {
  const T width = fmax(sub_rn(fmin(t.x2, a.x2), fmax(t.x1, a.x1)), T(0));
  const T height = fmax(sub_rn(fmin(t.y2, a.y2), fmax(t.y1, a.y1)), T(0));
  const T intersection = mul_rn(width, height);
  return div_rn(intersection, sub_rn(add_rn(area_t, area_a), intersection));
}
// Whether the IoU may be above 0.
template <class T>
__device__ __forceinline__ bool meet(const Box<T>& t, const Box<T>& a) {
  return fmin(t.x2, a.x2) > fmax(t.x1, a.x1) && fmin(t.y2, a.y2) > fmax(t.y1, a.y1);
}

template <class T>
__device__ __forceinline__ IouBits<T> bits_of(T value) {
  IouBits<T> bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

template <class T>
struct Thresholds {
  T high, low;
  // matched: what the anchor keeps if its IoU is high enough, or if it is restored.
  __device__ __forceinline__ int64_t label(T best, int64_t matched, bool restored) const {
    return best >= high || restored ? matched : best >= low ? kBetweenThresholds : kBelowLowThreshold;
  }
};

// The thread's anchor: its place among an image's, its place in the outputs, and its box. One past the end has the box
// of the last, and writes nothing.
template <class T>
struct Anchor {
  int64_t out;
  bool exists;
  Box<T> box;
  T area_;

  __device__ __forceinline__ Anchor(const MatchParams& p, const T* anchors, int64_t image) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    exists = i < p.anchors;
    out = image * p.anchors + (exists ? i : p.anchors - 1);
    box = load_box(anchors + 4 * (p.anchors_shared ? out - image * p.anchors : out));
    area_ = area(box);
  }
};

// Grid: blocks of anchors, images.
template <class T>
__global__ void __launch_bounds__(kThreads)
    match_best_kernel(const MatchParams p, const T* __restrict__ truths, const T* __restrict__ anchors,
                      const int64_t* __restrict__ valid, const Thresholds<T> thresholds,
                      IouBits<T>* __restrict__ block_best, IouBits<T>* __restrict__ truth_best,
                      int64_t* __restrict__ matches, T* __restrict__ ious) {
  __shared__ Box<T> tile[kTile];
  __shared__ T areas[kTile];
  __shared__ IouBits<T> tile_best[kTile];
  const int thread = threadIdx.x;
  for (int64_t image = blockIdx.y; image < p.images; image += gridDim.y) {
    const int count = static_cast<int>(truths_of(p, valid, image));
    const Anchor<T> anchor(p, anchors, image);
    T best = 0;
    int match = 0;
    for (int first = 0; first < count; first += kTile) {
      const int size = min(kTile, count - first);
      const int64_t row = image * p.truths + first + thread;
      __syncthreads();  // the tile before is read
      if (thread < size) {
        const Box<T> b = load_box(truths + 4 * row);
        tile[thread] = b;
        areas[thread] = area(b);
        tile_best[thread] = 0;
      }
      __syncthreads();
      for (int t = 0; t < size; ++t) {
        const Box<T> truth = tile[t];
        if (!meet(truth, anchor.box)) continue;
        const T found = iou(truth, areas[t], anchor.box, anchor.area_);
        if (!(found > T(0))) continue;
        if (p.low_quality) atomicMax(&tile_best[t], bits_of(found));
        if (found > best) {
          best = found;
          match = first + t;
        }
      }
      if (!p.low_quality) continue;
      __syncthreads();
      if (thread < size) {
        const IouBits<T> bits = tile_best[thread];
        block_best[(image * gridDim.x + blockIdx.x) * p.truths + first + thread] = bits;
        if (bits != 0) atomicMax(&truth_best[row], bits);
      }
    }
    if (!anchor.exists) continue;
    ious[anchor.out] = best;
    matches[anchor.out] = count == 0      ? kBelowLowThreshold
                          : p.low_quality ? match
                                          : thresholds.label(best, match, false);
  }
}

// Turns the best matches into labels. Grid as above.
template <class T>
__global__ void __launch_bounds__(kThreads)
    match_restore_kernel(const MatchParams p, const T* __restrict__ truths, const T* __restrict__ anchors,
                         const int64_t* __restrict__ valid, const Thresholds<T> thresholds,
                         const IouBits<T>* __restrict__ block_best, const IouBits<T>* __restrict__ truth_best,
                         int64_t* __restrict__ matches, const T* __restrict__ ious) {
  __shared__ Box<T> tile[kTile];
  __shared__ IouBits<T> tile_best[kTile];
  __shared__ int attained[kTile];
  const int thread = threadIdx.x;
  for (int64_t image = blockIdx.y; image < p.images; image += gridDim.y) {
    const int count = static_cast<int>(truths_of(p, valid, image));
    if (count == 0) continue;
    const Anchor<T> anchor(p, anchors, image);
    bool restored = false;
    for (int first = 0; first < count; first += kTile) {
      const int size = min(kTile, count - first);
      const int64_t row = image * p.truths + first + thread;
      bool mine = false;
      if (thread < size) {
        const IouBits<T> bits = truth_best[row];
        mine = block_best[(image * gridDim.x + blockIdx.x) * p.truths + first + thread] == bits;
        tile_best[thread] = bits;
        attained[thread] = mine;
        if (mine) tile[thread] = load_box(truths + 4 * row);
      }
      if (__syncthreads_or(mine)) {  // rare, unless a ground truth meets no anchor
        for (int t = 0; t < size && !restored; ++t) {
          if (!attained[t]) continue;
          const Box<T> truth = tile[t];
          T wanted;
          memcpy(&wanted, &tile_best[t], sizeof(wanted));
          restored = iou(truth, area(truth), anchor.box, anchor.area_) == wanted;
        }
      }
      __syncthreads();  // before the next tile
    }
    if (anchor.exists) matches[anchor.out] = thresholds.label(ious[anchor.out], matches[anchor.out], restored);
  }
}

}  // namespace

int64_t match_boxes_block_best(const MatchParams& p) {
  return p.images * ceil_div<int64_t>(p.anchors, kThreads) * p.truths;
}

template <class T>
cudaError_t match_boxes(const MatchParams& p, const T* truths, const T* anchors, const int64_t* valid,
                        IouBits<T>* block_best, IouBits<T>* truth_best, int64_t* matches, T* ious,
                        cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(p.anchors, kThreads)),
                  static_cast<unsigned>(p.images < kMaxGridY ? p.images : kMaxGridY));
  // As torch compares a tensor with a number: in the tensor's type.
  const Thresholds<T> thresholds{static_cast<T>(p.high_threshold), static_cast<T>(p.low_threshold)};
  const cudaError_t error = launch(match_best_kernel<T>, grid, dim3(kThreads), 0, stream, p, truths, anchors, valid,
                                   thresholds, block_best, truth_best, matches, ious);
  if (error != cudaSuccess || !p.low_quality || p.truths == 0) return error;
  return launch(match_restore_kernel<T>, grid, dim3(kThreads), 0, stream, p, truths, anchors, valid, thresholds,
                block_best, truth_best, matches, ious);
}

template cudaError_t match_boxes<float>(const MatchParams&, const float*, const float*, const int64_t*, unsigned*,
                                        unsigned*, int64_t*, float*, cudaStream_t);
template cudaError_t match_boxes<double>(const MatchParams&, const double*, const double*, const int64_t*,
                                         unsigned long long*, unsigned long long*, int64_t*, double*, cudaStream_t);

}  // namespace structops::cuda
