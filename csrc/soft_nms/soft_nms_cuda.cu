// Soft NMS on the GPU: one block for each class takes box after box.
//
// A step is one pass over the class, in which every thread lowers the scores of its boxes and keeps the best of them,
// and one reduction over the block: the method is as sequential as that. A step of 1000 boxes is estimated at 1.5 us.
#include <limits>

#include "common/cuda/device.cuh"
#include "soft_nms/soft_nms_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

template <class T>
struct alignas(16) Box {
  T x1, y1, x2, y2;
};

template <class T>
struct Workspace {
  Box<T>* boxes;  // [N] by place
  T* scores;      // [N] by place, lowered step by step; 0: out

  Workspace(void* memory, int64_t n) : boxes(static_cast<Box<T>*>(memory)), scores(reinterpret_cast<T*>(boxes + n)) {}
  static size_t bytes(int64_t n) { return size_t(n) * (sizeof(Box<T>) + sizeof(T)); }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    soft_nms_place_kernel(const SoftNmsInput<T> in, T score_limit, const Workspace<T> w, T* __restrict__ result) {
  const int64_t place = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (place >= in.n) return;
  const int64_t box = in.order == nullptr ? place : in.order[place];
  const T* b = in.boxes + box * 4;
  w.boxes[place] = {b[0], b[1], b[2], b[3]};
  const T score = in.scores[box];
  w.scores[place] = score > score_limit ? score : T(0);
  result[place] = 0;
}

template <class T>
struct Best {
  T score;
  int place;

  // The first of equals.
  __device__ __forceinline__ void meet(T other, int at) {
    if (other > score || (other == score && at < place)) {
      score = other;
      place = at;
    }
  }
};

// Of all threads of the block; each gets it. Two buffers in turn: one barrier a step.
template <class T>
__device__ __forceinline__ Best<T> best_of_block(Best<T> mine, Best<T> (*shared)[kWarps], int turn) {
  for (int o = 16; o > 0; o /= 2)
    mine.meet(__shfl_xor_sync(kFullWarp, mine.score, o), __shfl_xor_sync(kFullWarp, mine.place, o));
  if (threadIdx.x % 32 == 0) shared[turn][threadIdx.x / 32] = mine;
  __syncthreads();
  Best<T> best = shared[turn][0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) best.meet(shared[turn][i].score, shared[turn][i].place);
  return best;
}

// Where the class of a place ends: the first place after it of another class.
__device__ __forceinline__ int class_end(const int64_t* classes, int place, int n) {
  const int64_t mine = classes[place];
  int low = place + 1;
  for (int high = n; low < high;) {
    const int middle = low + (high - low) / 2;
    if (classes[middle] == mine) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// A block for each place; those where no class begins end at once. Four blocks a multiprocessor: left alone, the
// compiler stops at 48 registers and spills doubles.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    soft_nms_decay_kernel(const SoftNmsInput<T> in, const SoftNmsRule<T> rule, int most, const Workspace<T> w,
                          T* __restrict__ result) {
  __shared__ Best<T> shared[2][kWarps];
  const int begin = blockIdx.x, n = int(in.n), thread = threadIdx.x;
  if (in.classes != nullptr && begin > 0 && in.classes[begin - 1] == in.classes[begin]) return;
  const int end = in.classes == nullptr ? n : class_end(in.classes, begin, n);
  Best<T> mine{T(0), std::numeric_limits<int>::max()};
  for (int place = begin + thread; place < end; place += kThreads) mine.meet(w.scores[place], place);
  for (int taken = 0; taken < most; ++taken) {
    const Best<T> best = best_of_block(mine, shared, taken % 2);
    if (!(best.score > T(0))) break;  // the same for the whole block
    if (thread == 0) result[in.order == nullptr ? best.place : in.order[best.place]] = best.score;
    const Box<T> a = w.boxes[best.place];
    const T area = mul_rn(sub_rn(a.x2, a.x1), sub_rn(a.y2, a.y1));
    mine = {T(0), std::numeric_limits<int>::max()};
    for (int place = begin + thread; place < end; place += kThreads) {
      T score = w.scores[place];
      if (score == T(0)) continue;
      if (place == best.place) {
        w.scores[place] = 0;
        continue;
      }
      const Box<T> b = w.boxes[place];
      // fmin and fmax pass over a NaN, but its box's area is NaN, and then every comparison fails.
      const T width = sub_rn(fmin(a.x2, b.x2), fmax(a.x1, b.x1)), height = sub_rn(fmin(a.y2, b.y2), fmax(a.y1, b.y1));
      if (width > T(0) && height > T(0)) {
        const T intersection = mul_rn(width, height);
        const T joint = sub_rn(add_rn(area, mul_rn(sub_rn(b.x2, b.x1), sub_rn(b.y2, b.y1))), intersection);
        const T lower = soften(rule, div_rn(intersection, joint), score);
        if (lower != score) {
          score = lower > rule.score_limit ? lower : T(0);
          w.scores[place] = score;
        }
      }
      mine.meet(score, place);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    soft_nms_finish_kernel(const NmsKey<T>* __restrict__ keys, const int64_t* __restrict__ order,
                           const T* __restrict__ result, int64_t n, int64_t most, int64_t* __restrict__ indices,
                           T* __restrict__ decayed, int64_t* __restrict__ count) {
  const int64_t rank = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const auto taken = [&](int64_t at) { return at < n && at < most && keys[at] != kNoBox<T>; };
  const bool mine = taken(rank);
  if (rank < most) {
    const int64_t box = mine ? order[rank] : -1;
    indices[rank] = box;
    decayed[rank] = mine ? result[box] : T(0);
  }
  // They come first: the last of them knows how many there are, or the first thread that there are none.
  if (mine ? !taken(rank + 1) : rank == 0) *count = mine ? rank + 1 : 0;
}

dim3 blocks_for(int64_t n) { return dim3(unsigned(ceil_div<int64_t>(n, kThreads))); }

}  // namespace

template <class T>
size_t soft_nms_workspace(int64_t n) {
  return Workspace<T>::bytes(n);
}

template <class T>
cudaError_t soft_nms_decay(const SoftNmsInput<T>& in, const SoftNmsRule<T>& rule, int64_t most, void* workspace,
                           T* result, cudaStream_t stream) {
  if (in.n == 0) return cudaSuccess;
  if (in.n > std::numeric_limits<int>::max() - kThreads) return cudaErrorInvalidValue;
  const Workspace<T> w(workspace, in.n);
  const cudaError_t error =
      launch(soft_nms_place_kernel<T>, blocks_for(in.n), dim3(kThreads), 0, stream, in, rule.score_limit, w, result);
  if (error != cudaSuccess) return error;
  return launch(soft_nms_decay_kernel<T>, dim3(in.classes == nullptr ? 1 : unsigned(in.n)), dim3(kThreads), 0, stream,
                in, rule, int(most < in.n ? most : in.n), w, result);
}

template <class T>
cudaError_t soft_nms_finish(const NmsKey<T>* keys, const int64_t* order, const T* result, int64_t n, int64_t most,
                            int64_t* indices, T* decayed, int64_t* count, cudaStream_t stream) {
  return launch(soft_nms_finish_kernel<T>, blocks_for(most > 0 ? most : 1), dim3(kThreads), 0, stream, keys, order,
                result, n, most, indices, decayed, count);
}

#define STRUCTOPS_INSTANTIATE(T)                                                                                      \
  template size_t soft_nms_workspace<T>(int64_t);                                                                     \
  template cudaError_t soft_nms_decay<T>(const SoftNmsInput<T>&, const SoftNmsRule<T>&, int64_t, void*, T*,           \
                                         cudaStream_t);                                                               \
  template cudaError_t soft_nms_finish<T>(const NmsKey<T>*, const int64_t*, const T*, int64_t, int64_t, int64_t*, T*, \
                                          int64_t*, cudaStream_t);
STRUCTOPS_INSTANTIATE(float)
STRUCTOPS_INSTANTIATE(double)

}  // namespace structops::cuda
