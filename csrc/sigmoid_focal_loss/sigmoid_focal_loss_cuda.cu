// Sigmoid focal loss on the GPU: one pass over memory in each direction.
//
// A thread takes 16 bytes of logits, and as many targets or, of classes, the one of its row. For 268,569 x 90 float32
// the forward reads 193 MB (97 MB with classes), some 60 us of an H100's memory, and executes 62 instructions an
// element (counted in the machine code), 50 us of its multiprocessors: the two overlap. Exponents other than 2 cost a
// pow more.
#include <cmath>
#include <cub/block/block_reduce.cuh>
#include <limits>

#include "common/cuda/device.cuh"
#include "common/roi_axis.h"
#include "sigmoid_focal_loss/sigmoid_focal_loss_cuda.h"

namespace structops::cuda {
namespace {

#include "sigmoid_focal_loss/focal_math.h"

constexpr int kThreads = 256;
constexpr int64_t kChunk = 16384;  // elements that a block sums: fixed, and so the order of additions

template <class A>
struct DeviceMath {
  A largest, exponent;
  bool square;  // of the whole launch: a branch that no warp parts at

  __device__ __forceinline__ A exp(A x) const { return std::exp(x); }
  // In float the hardware's reciprocal, off by one unit in the last place, and a series: with exact divisions and
  // log1pf it is 116 instructions an element instead of 62, and no longer the memory that takes the time.
  __device__ __forceinline__ A divide(A a, A b) const {
    if constexpr (sizeof(A) == 4)
      return __fdividef(a, b);
    else
      return a / b;
  }
  __device__ __forceinline__ A log1p(A e) const {
    if constexpr (sizeof(A) == 8) return std::log1p(e);
    const A s = divide(e, e + A(2)), square = s * s;  // 2 atanh(s); s <= 1/3
    A sum = A(2) / A(17);
#pragma unroll
    for (int k = 7; k >= 0; --k) sum = fused(sum, square, A(2) / A(2 * k + 1));
    return s * sum;
  }
  __device__ __forceinline__ A power(A x) const { return std::pow(x, exponent); }
};

template <class T>
using DeviceFocal = Focal<acc_t<T>, DeviceMath<acc_t<T>>>;

template <class T>
DeviceFocal<T> device_focal(const FocalLaw& law) {
  using A = acc_t<T>;
  return {A(1),
          A(law.positive),
          A(law.negative),
          A(law.gamma),
          {std::numeric_limits<A>::max(), A(law.gamma), law.gamma == 2}};
}

template <class T>
struct Args {
  DeviceFocal<T> focal;
  FocalInput<T> in;
  bool wide;    // every pointer is aligned to 16 bytes
  bool narrow;  // the count fits an int: its divisions are several times faster
};

// Values of a pack, those past the end zero.
template <class T, int V = kPack<T>>
__device__ __forceinline__ Pack<T, V> load_some(const T* from, int64_t i, int n, bool wide) {
  if (wide && n == V) return load_pack<T, V>(from + i);
  Pack<T, V> pack;
#pragma unroll
  for (int v = 0; v < V; ++v) pack.value[v] = v < n ? from[i + v] : down<T>(0);
  return pack;
}

template <class T, int V = kPack<T>>
__device__ __forceinline__ void store_some(T* to, int64_t i, int n, bool wide, const Pack<T, V>& pack) {
  if (wide && n == V) {
    *reinterpret_cast<Pack<T, V>*>(to + i) = pack;
    return;
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (v < n) to[i + v] = pack.value[v];
}

// Targets of elements i .. i + n; kIgnoredClass where the row is ignored.
template <class T, int V = kPack<T>>
__device__ __forceinline__ void load_targets(const Args<T>& a, int64_t i, int n, acc_t<T> (&targets)[V]) {
  using A = acc_t<T>;
  const FocalInput<T>& in = a.in;
  if (in.classes == nullptr) {
    const Pack<T, V> pack = load_some(in.targets, i, n, a.wide);
#pragma unroll
    for (int v = 0; v < V; ++v) targets[v] = up(pack, v);
    return;
  }
  int64_t row = a.narrow ? int(i) / int(in.columns) : i / in.columns;
  int64_t column = i - row * in.columns, of_row = __ldg(in.classes + row);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (column == in.columns && v < n) {
      column = 0;
      of_row = __ldg(in.classes + ++row);
    }
    targets[v] = of_row == kIgnoredClass ? A(kIgnoredClass) : A(of_row == column ? 1 : 0);
    ++column;
  }
}

template <class A>
__device__ __forceinline__ bool ignored(const void* classes, A target) {
  return classes != nullptr && target < 0;
}

template <class T>
__device__ __forceinline__ int pack_length(const Args<T>& a, int64_t i) {
  const int64_t left = a.in.count - i;
  return left < kPack<T> ? static_cast<int>(left) : kPack<T>;
}

template <class T>
__global__ void __launch_bounds__(kThreads) sigmoid_focal_loss_kernel(const Args<T> a, T* __restrict__ loss) {
  constexpr int V = kPack<T>;
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (i >= a.in.count) return;
  const int n = pack_length(a, i);
  acc_t<T> targets[V];
  load_targets(a, i, n, targets);
  const Pack<T, V> inputs = load_some(a.in.inputs, i, n, a.wide);
  Pack<T, V> out;
#pragma unroll
  for (int v = 0; v < V; ++v)
    out.value[v] = down<T>(ignored(a.in.classes, targets[v]) ? 0 : a.focal.loss(up(inputs, v), targets[v]));
  store_some(loss, i, n, a.wide, out);
}

// The block's total, for its thread 0.
__device__ __forceinline__ double block_sum(double value) {
  using Reduce = cub::BlockReduce<double, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  return Reduce(storage).Sum(value);
}

// partials [chunks]. A pack is added in the type of the maths and packs in double, which GPUs without fast doubles can
// afford for one element in four.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sigmoid_focal_loss_sum_kernel(const Args<T> a, double* __restrict__ partials) {
  constexpr int V = kPack<T>;
  const int64_t begin = int64_t(blockIdx.x) * kChunk, stop = begin + kChunk;
  const int64_t end = stop < a.in.count ? stop : a.in.count;
  double total = 0;
  for (int64_t i = begin + threadIdx.x * V; i < end; i += kThreads * V) {
    const int n = pack_length(a, i);
    acc_t<T> targets[V], sum = 0;
    load_targets(a, i, n, targets);
    const Pack<T, V> inputs = load_some(a.in.inputs, i, n, a.wide);
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < n && !ignored(a.in.classes, targets[v])) sum += a.focal.loss(up(inputs, v), targets[v]);
    total += sum;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// One block.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sigmoid_focal_loss_total_kernel(const double* __restrict__ partials, int64_t count, double divisor,
                                    T* __restrict__ loss) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) total += partials[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *loss = down<T>(static_cast<acc_t<T>>(total / divisor));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    sigmoid_focal_loss_backward_kernel(const Args<T> a, const T* __restrict__ grad, bool reduced, acc_t<T> share,
                                       T* __restrict__ grad_inputs) {
  constexpr int V = kPack<T>;
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (i >= a.in.count) return;
  const int n = pack_length(a, i);
  acc_t<T> targets[V];
  load_targets(a, i, n, targets);
  const Pack<T, V> inputs = load_some(a.in.inputs, i, n, a.wide);
  Pack<T, V> incoming{};
  if (!reduced) incoming = load_some(grad, i, n, a.wide);
  const acc_t<T> same = reduced ? up(__ldg(grad)) * share : 0;
  Pack<T, V> out;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const acc_t<T> factor = reduced ? same : up(incoming, v);
    out.value[v] = down<T>(ignored(a.in.classes, targets[v]) ? 0 : factor * a.focal.slope(up(inputs, v), targets[v]));
  }
  store_some(grad_inputs, i, n, a.wide, out);
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <class T, class... Pointers>
Args<T> make_args(const FocalLaw& law, const FocalInput<T>& in, const Pointers*... others) {
  const bool wide = aligned(in.inputs) && aligned(in.targets) && (aligned(others) && ...);
  return {device_focal<T>(law), in, wide, in.count <= std::numeric_limits<int>::max()};
}

template <class T>
cudaError_t grid_of(const FocalInput<T>& in, int64_t per_block, dim3& grid) {
  const int64_t blocks = ceil_div(in.count, per_block);
  grid = dim3(static_cast<unsigned>(blocks));
  return blocks > std::numeric_limits<int>::max() ? cudaErrorInvalidValue : cudaSuccess;
}

}  // namespace

template <class T>
cudaError_t sigmoid_focal_loss(const FocalLaw& law, const FocalInput<T>& in, T* loss, cudaStream_t stream) {
  dim3 grid;
  if (const cudaError_t error = grid_of(in, kThreads * kPack<T>, grid); error != cudaSuccess) return error;
  return launch(sigmoid_focal_loss_kernel<T>, grid, dim3(kThreads), 0, stream, make_args(law, in, loss), loss);
}

int64_t sigmoid_focal_loss_partials(int64_t count) { return ceil_div(count, kChunk); }

template <class T>
cudaError_t sigmoid_focal_loss_sum(const FocalLaw& law, const FocalInput<T>& in, double divisor, double* partials,
                                   T* loss, cudaStream_t stream) {
  dim3 grid;
  if (const cudaError_t error = grid_of(in, kChunk, grid); error != cudaSuccess) return error;
  const cudaError_t error =
      launch(sigmoid_focal_loss_sum_kernel<T>, grid, dim3(kThreads), 0, stream, make_args(law, in), partials);
  if (error != cudaSuccess) return error;
  return launch(sigmoid_focal_loss_total_kernel<T>, dim3(1), dim3(kThreads), 0, stream,
                static_cast<const double*>(partials), sigmoid_focal_loss_partials(in.count), divisor, loss);
}

template <class T>
cudaError_t sigmoid_focal_loss_backward(const FocalLaw& law, const FocalInput<T>& in, const T* grad, bool reduced,
                                        double divisor, T* grad_inputs, cudaStream_t stream) {
  dim3 grid;
  if (const cudaError_t error = grid_of(in, kThreads * kPack<T>, grid); error != cudaSuccess) return error;
  const Args<T> args = make_args(law, in, reduced ? nullptr : grad, grad_inputs);
  return launch(sigmoid_focal_loss_backward_kernel<T>, grid, dim3(kThreads), 0, stream, args, grad, reduced,
                static_cast<acc_t<T>>(1 / divisor), grad_inputs);
}

#define INSTANTIATE(T)                                                                                               \
  template cudaError_t sigmoid_focal_loss<T>(const FocalLaw&, const FocalInput<T>&, T*, cudaStream_t);               \
  template cudaError_t sigmoid_focal_loss_sum<T>(const FocalLaw&, const FocalInput<T>&, double, double*, T*,         \
                                                 cudaStream_t);                                                      \
  template cudaError_t sigmoid_focal_loss_backward<T>(const FocalLaw&, const FocalInput<T>&, const T*, bool, double, \
                                                      T*, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
