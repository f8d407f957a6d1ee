// Box coding on the GPU: a thread a box, and in the backward a thread an anchor, which sums over images and classes in
// order. A launch before torch's exponentials and one after; torchvision takes about twenty.
#include <limits>

#include "box_coding/box_coding_cuda.h"
#include "box_coding/box_coding_maths.h"
#include "common/cuda/device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__device__ __forceinline__ CentreSize<T> anchor_of_code(const CodingParams& p, const T* anchors, int64_t i) {
  return anchor_of(p.coding, box_at(anchors, i / p.classes % p.anchors));
}

template <bool kDecode, class T>
__global__ void __launch_bounds__(kThreads)
    coding_arguments_kernel(const CodingParams p, int64_t count, const T* __restrict__ in,
                            const T* __restrict__ anchors, const Curves<T> to) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  // Decoding, only the code itself is asked for.
  if (i < count) put_arguments<kDecode>(p, in, kDecode ? CentreSize<T>{} : anchor_of_code(p, anchors, i), i, to);
}

template <bool kDecode, class T>
__global__ void __launch_bounds__(kThreads)
    code_boxes_kernel(const CodingParams p, int64_t count, const T* __restrict__ in, const T* __restrict__ anchors,
                      const Curves<T> values, T* __restrict__ out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) put_coded<kDecode>(p, in, anchor_of_code(p, anchors, i), values, i, out);
}

template <bool kDecode, class T>
__global__ void __launch_bounds__(kThreads)
    code_boxes_backward_kernel(const CodingParams p, const T* __restrict__ grad, const T* __restrict__ in,
                               const T* __restrict__ anchors, const Curves<T> values, T* __restrict__ grad_in,
                               T* __restrict__ grad_anchors) {
  const int64_t a = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (a >= p.anchors) return;
  const CentreSize<T> anchor = anchor_of(p.coding, box_at(anchors, a));
  CentreSize<T> to_anchor{};
  for (int64_t image = 0; image < p.batch; ++image) {
    const int64_t first = (image * p.anchors + a) * p.classes;
    for (int64_t i = first; i < first + p.classes; ++i)
      put_gradient<kDecode>(p, grad, in, anchor, values, i, grad_in, to_anchor);
  }
  put_box(grad_anchors, a, anchor_gradient(to_anchor));
}

// Calls use.operator()<decode>() with the direction as a constant.
template <class Use>
cudaError_t with_direction(bool decode, const Use& use) {
  return decode ? use.template operator()<true>() : use.template operator()<false>();
}

dim3 grid_for(int64_t threads) { return dim3(unsigned(ceil_div<int64_t>(threads, kThreads))); }

// What one launch reaches: 2^31 blocks.
bool too_many(int64_t threads) { return threads > int64_t(std::numeric_limits<int>::max()) * kThreads; }

}  // namespace

template <class T>
cudaError_t coding_arguments(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& to,
                             cudaStream_t stream) {
  const int64_t count = p.batch * p.anchors * p.classes;
  if (too_many(count)) return cudaErrorInvalidValue;
  return with_direction(decode, [&]<bool kDecode>() {
    return launch(coding_arguments_kernel<kDecode, T>, grid_for(count), dim3(kThreads), 0, stream, p, count, in,
                  anchors, to);
  });
}

template <class T>
cudaError_t code_boxes(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& values,
                       T* out, cudaStream_t stream) {
  const int64_t count = p.batch * p.anchors * p.classes;
  if (too_many(count)) return cudaErrorInvalidValue;
  return with_direction(decode, [&]<bool kDecode>() {
    return launch(code_boxes_kernel<kDecode, T>, grid_for(count), dim3(kThreads), 0, stream, p, count, in, anchors,
                  values, out);
  });
}

template <class T>
cudaError_t code_boxes_backward(const CodingParams& p, bool decode, const T* grad, const T* in, const T* anchors,
                                const Curves<T>& values, T* grad_in, T* grad_anchors, cudaStream_t stream) {
  if (too_many(p.anchors)) return cudaErrorInvalidValue;
  return with_direction(decode, [&]<bool kDecode>() {
    return launch(code_boxes_backward_kernel<kDecode, T>, grid_for(p.anchors), dim3(kThreads), 0, stream, p, grad, in,
                  anchors, values, grad_in, grad_anchors);
  });
}

#define INSTANTIATE(T)                                                                                      \
  template cudaError_t coding_arguments<T>(const CodingParams&, bool, const T*, const T*, const Curves<T>&, \
                                           cudaStream_t);                                                   \
  template cudaError_t code_boxes<T>(const CodingParams&, bool, const T*, const T*, const Curves<T>&, T*,   \
                                     cudaStream_t);                                                         \
  template cudaError_t code_boxes_backward<T>(const CodingParams&, bool, const T*, const T*, const T*,      \
                                              const Curves<T>&, T*, T*, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
