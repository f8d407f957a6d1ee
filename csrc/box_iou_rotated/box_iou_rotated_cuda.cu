// IoU of rotated boxes on the GPU.
//
// A pair takes some 200 double-precision operations, which a data-centre GPU does at half the speed of single precision
// (H100: 4e11 pairs a second at the most), other GPUs at a 64th. So pairs are first rejected by their bounds, in
// float32: on images that leaves 3 to 6 of 100. A thread notes the pairs of its column that are left as bits, and walks
// along those: lanes of a warp work on different rows then, but all of them work.
#include "box_iou_rotated/rotated_boxes.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 32;  // bits of a thread's word

template <class T>
__global__ void __launch_bounds__(kThreads) rotated_boxes_kernel(const T* __restrict__ boxes, RotatedBoxes out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= out.size) return;
  const RotatedBox box = read_box(boxes, i);
  out.boxes[i] = box;
  out.bounds[i] = bounds_of(box);
}

template <class Out>
__global__ void __launch_bounds__(kThreads) box_iou_rotated_kernel(RotatedBoxes a, RotatedBoxes b, Out* out) {
  __shared__ RotatedBox boxes[kRows];
  __shared__ RotatedBounds bounds[kRows];
  const int thread = threadIdx.x;
  const int64_t column = int64_t(blockIdx.x) * kThreads + thread;
  RotatedBox mine{};
  RotatedBounds around{};
  if (column < b.size) {
    mine = b.boxes[column];
    around = b.bounds[column];
  }
  for (int64_t first = int64_t(blockIdx.y) * kRows; first < a.size; first += int64_t(gridDim.y) * kRows) {
    const int rows = static_cast<int>(a.size - first < kRows ? a.size - first : kRows);
    __syncthreads();  // nobody reads the rows before any more
    if (thread < rows) {
      boxes[thread] = a.boxes[first + thread];
      bounds[thread] = a.bounds[first + thread];
    }
    __syncthreads();
    if (column >= b.size) continue;
    Out* at = out + first * b.size + column;
    unsigned near = 0;
    for (int row = 0; row < rows; ++row) {
      const bool meets = meet(bounds[row], around);
      near |= unsigned(meets) << row;
      if (!meets) at[row * b.size] = Out(0);
    }
    for (; near != 0; near &= near - 1) {
      const int row = __ffs(static_cast<int>(near)) - 1;
      at[row * b.size] = static_cast<Out>(rotated_iou(boxes[row], mine));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    box_iou_rotated_elementwise_kernel(const T* __restrict__ boxes1, const T* __restrict__ boxes2, int64_t n,
                                       T* __restrict__ out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = static_cast<T>(rotated_iou(read_box(boxes1, i), read_box(boxes2, i)));
}

}  // namespace

template <class T>
cudaError_t rotated_boxes(const T* boxes, int64_t n, void* workspace, cudaStream_t stream) {
  return launch(rotated_boxes_kernel<T>, dim3(unsigned(ceil_div<int64_t>(n, kThreads))), dim3(kThreads), 0, stream,
                boxes, RotatedBoxes(workspace, n));
}

template <class Out>
cudaError_t box_iou_rotated(void* workspace1, int64_t n, void* workspace2, int64_t m, Out* out, cudaStream_t stream) {
  const int64_t columns = ceil_div<int64_t>(m, kThreads), rows = ceil_div<int64_t>(n, kRows);
  return launch(box_iou_rotated_kernel<Out>, dim3(unsigned(columns), unsigned(rows < 65535 ? rows : 65535)),
                dim3(kThreads), 0, stream, RotatedBoxes(workspace1, n), RotatedBoxes(workspace2, m), out);
}

template <class T>
cudaError_t box_iou_rotated_elementwise(const T* boxes1, const T* boxes2, int64_t n, T* out, cudaStream_t stream) {
  return launch(box_iou_rotated_elementwise_kernel<T>, dim3(unsigned(ceil_div<int64_t>(n, kThreads))), dim3(kThreads),
                0, stream, boxes1, boxes2, n, out);
}

template cudaError_t rotated_boxes<float>(const float*, int64_t, void*, cudaStream_t);
template cudaError_t rotated_boxes<double>(const double*, int64_t, void*, cudaStream_t);
template cudaError_t box_iou_rotated<float>(void*, int64_t, void*, int64_t, float*, cudaStream_t);
template cudaError_t box_iou_rotated<double>(void*, int64_t, void*, int64_t, double*, cudaStream_t);
template cudaError_t box_iou_rotated_elementwise<float>(const float*, const float*, int64_t, float*, cudaStream_t);
template cudaError_t box_iou_rotated_elementwise<double>(const double*, const double*, int64_t, double*, cudaStream_t);

}  // namespace structops::cuda
