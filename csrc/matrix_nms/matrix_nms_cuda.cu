// Matrix NMS on the GPU: every box against the better ones of its class, twice, in linear memory.
//
// A thread has a box and walks along its better ones, which a block loads together. First each one's worst overlap,
// then the least of what the better ones say with theirs: minima and maxima, so that no order of adding can differ.
#include <limits>

#include "matrix_nms/matrix_nms_cuda.h"
#include "nms/nms_device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
struct Workspace {
  Box<T>* boxes;  // [N] by place
  T* worst;       // [N] by place: the worst overlap with a better one
  int* box;       // [N] of each place
  int* first;     // [N] place where each one's class begins

  Workspace(void* memory, int64_t n)
      : boxes(static_cast<Box<T>*>(memory)),
        worst(reinterpret_cast<T*>(boxes + n)),
        box(reinterpret_cast<int*>(worst + n)),
        first(box + n) {}
  static size_t bytes(int64_t n) { return size_t(n) * (sizeof(Box<T>) + sizeof(T) + 2 * sizeof(int)); }
};

template <class T>
__global__ void __launch_bounds__(kThreads) matrix_nms_place_kernel(const MatrixNmsInput<T> in, const Workspace<T> w) {
  const int place = blockIdx.x * kThreads + threadIdx.x;
  if (place >= in.n) return;
  const int64_t box = in.by_score[in.by_class == nullptr ? place : in.by_class[place]];
  w.box[place] = int(box);
  if (in.boxes != nullptr) {
    const T* b = in.boxes + box * 4;
    w.boxes[place] = {b[0], b[1], b[2], b[3]};
  }
  w.first[place] = class_begin(in.classes, place);
}

// kWeigh: the second pass. kGiven: overlaps are read from a matrix.
template <class T, bool kWeigh, bool kGiven>
__global__ void __launch_bounds__(kThreads) matrix_nms_kernel(const MatrixNmsInput<T> in, const MatrixNmsRule<T> rule,
                                                              const Workspace<T> w, T* __restrict__ lowered) {
  __shared__ Box<T> boxes[kThreads];
  __shared__ T areas[kThreads];
  __shared__ T worst[kThreads];
  __shared__ int columns[kThreads];
  const int n = int(in.n), thread = threadIdx.x, start = blockIdx.x * kThreads, place = start + thread;
  const bool exists = place < n;
  const int first = exists ? w.first[place] : place, box = exists ? w.box[place] : 0;
  Box<T> mine{};
  if (!kGiven && exists) mine = w.boxes[place];
  const T my_area = area(mine);
  const T* row = kGiven ? in.ious + int64_t(box) * n : nullptr;
  T found = kWeigh ? rule.none() : T(0);
  const int end = min(start + kThreads, n);
  for (int tile = w.first[start]; tile < end; tile += kThreads) {  // places rise with their classes
    const int other = tile + thread;
    if (other < end) {
      if (kGiven) {
        columns[thread] = w.box[other];
      } else {
        boxes[thread] = w.boxes[other];
        areas[thread] = area(boxes[thread]);
      }
      if (kWeigh) worst[thread] = w.worst[other];
    }
    __syncthreads();
    const int to = min(place - tile, kThreads);
    for (int i = max(first - tile, 0); i < to; ++i) {
      T iou = 0;
      if (kGiven) {
        iou = counted<T>(row[columns[i]]);
      } else {
        const Box<T>& b = boxes[i];
        // fmin and fmax pass over a NaN, but its box's area is NaN, and so is the quotient.
        const T width = sub_rn(fmin(b.x2, mine.x2), fmax(b.x1, mine.x1));
        const T height = sub_rn(fmin(b.y2, mine.y2), fmax(b.y1, mine.y1));
        if (!(width > T(0) && height > T(0))) continue;
        const T intersection = mul_rn(width, height);
        iou = counted<T>(div_rn(intersection, sub_rn(add_rn(areas[i], my_area), intersection)));
      }
      if (kWeigh) {
        const T said = rule.lowering(worst[i], iou);
        found = said < found ? said : found;
      } else {
        found = iou > found ? iou : found;
      }
    }
    __syncthreads();
  }
  if (!exists) return;
  if (kWeigh) {
    lowered[box] = mul_rn(in.scores[box], rule.weight(found));
  } else {
    w.worst[place] = found;
  }
}

template <class T, bool kGiven>
cudaError_t weigh(const MatrixNmsInput<T>& in, const MatrixNmsRule<T>& rule, const Workspace<T>& w, T* lowered,
                  cudaStream_t stream) {
  const dim3 grid(unsigned(ceil_div<int64_t>(in.n, kThreads)));
  const cudaError_t error =
      launch(matrix_nms_kernel<T, false, kGiven>, grid, dim3(kThreads), 0, stream, in, rule, w, lowered);
  if (error != cudaSuccess) return error;
  return launch(matrix_nms_kernel<T, true, kGiven>, grid, dim3(kThreads), 0, stream, in, rule, w, lowered);
}

}  // namespace

template <class T>
size_t matrix_nms_workspace(int64_t n) {
  return Workspace<T>::bytes(n);
}

template <class T>
cudaError_t matrix_nms(const MatrixNmsInput<T>& in, const MatrixNmsRule<T>& rule, void* workspace, T* lowered,
                       cudaStream_t stream) {
  if (in.n == 0) return cudaSuccess;
  if (in.n > std::numeric_limits<int>::max() - 2 * kThreads) return cudaErrorInvalidValue;
  const Workspace<T> w(workspace, in.n);
  const cudaError_t error = launch(matrix_nms_place_kernel<T>, dim3(unsigned(ceil_div<int64_t>(in.n, kThreads))),
                                   dim3(kThreads), 0, stream, in, w);
  if (error != cudaSuccess) return error;
  return in.ious == nullptr ? weigh<T, false>(in, rule, w, lowered, stream)
                            : weigh<T, true>(in, rule, w, lowered, stream);
}

template size_t matrix_nms_workspace<float>(int64_t);
template size_t matrix_nms_workspace<double>(int64_t);
template cudaError_t matrix_nms<float>(const MatrixNmsInput<float>&, const MatrixNmsRule<float>&, void*, float*,
                                       cudaStream_t);
template cudaError_t matrix_nms<double>(const MatrixNmsInput<double>&, const MatrixNmsRule<double>&, void*, double*,
                                        cudaStream_t);

}  // namespace structops::cuda
