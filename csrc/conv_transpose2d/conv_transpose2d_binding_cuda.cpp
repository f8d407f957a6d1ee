// conv_transpose2d for torch on CUDA: checks, allocation, launches on the current stream. Nothing here waits for the
// GPU.
#include <numeric>
#include <type_traits>
#include <utility>

#include "common/cuda/binding.h"
#include "conv_transpose2d/conv_packing.h"
#include "conv_transpose2d/conv_transpose2d_checks.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;
using Steps = std::vector<int64_t>;

// The inverse of a modulo m, for m > 1 and a prime to it.
int64_t inverse_modulo(int64_t a, int64_t m) {
  int64_t r0 = m, r1 = a % m, t0 = 0, t1 = 1;
  while (r1 != 0) {
    const int64_t q = r0 / r1;
    r0 = std::exchange(r1, r0 - q * r1);
    t0 = std::exchange(t1, t0 - q * t1);
  }
  return t0 < 0 ? t0 + m : t0;
}

cuda::ConvSteps steps(int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t common = std::gcd(stride, dilation), step = stride / common;
  return {kernel, stride, padding, dilation, common, step > 1 ? inverse_modulo(dilation / common, step) : 0};
}

cuda::ConvShape shape_of(const ConvTransposeParams& p, bool forward) {
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  return {p.batch,
          p.groups,
          forward ? in : out,
          forward ? out : in,
          steps(p.kernel_height, p.stride_height, p.padding_height, p.dilation_height),
          steps(p.kernel_width, p.stride_width, p.padding_width, p.dilation_width),
          forward};
}

bool is_depthwise(const cuda::ConvShape& s) { return s.groups > 1 && s.depth == 1 && s.channels == 1; }

template <class scalar_t>
using Arithmetic = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
template <class scalar_t>
using Epilogue = cuda::ConvEpilogue<cuda::DeviceType<scalar_t>, Arithmetic<scalar_t>>;

// The weights [kernel_y, kernel_x, padded channels] of a depthwise convolution.
template <class T>
Tensor packed_depthwise(const cuda::ConvShape& s, const Tensor& weight, cudaStream_t stream) {
  const int64_t padded = cuda::padded_depth<T>(s.groups);
  const Tensor packed = empty({s.y.kernel * s.x.kernel * padded}, weight.scalar_type(), weight);
  const cuda::ConvPack pack{{1, 0, 0},
                            {1, 0, 0},
                            {s.y.kernel, weight.stride(2), s.x.kernel * padded},
                            {s.x.kernel, weight.stride(3), padded},
                            s.groups,
                            weight.stride(0),
                            padded};
  STD_CUDA_CHECK(cuda::conv_pack(pack, data<T>(weight), mutable_data<T>(packed), stream));
  return packed;
}

int64_t multiprocessors(const Tensor& t) {
  int count = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, t.get_device_index()));
  return count;
}

template <class scalar_t>
void convolve(const ConvTransposeParams& p, bool forward, const Tensor& source, const Tensor& weight, const Tensor& out,
              const Epilogue<scalar_t>& epilogue) {
  using T = cuda::DeviceType<scalar_t>;
  const cuda::ConvShape shape = shape_of(p, forward);
  const cudaStream_t stream = cuda::current_stream(source);
  if (is_depthwise(shape)) {
    const Tensor packed = packed_depthwise<T>(shape, weight, stream);
    STD_CUDA_CHECK(cuda::conv_depthwise(shape, map_of(source), data<T>(source), data<T>(packed), map_of(out),
                                        mutable_data<T>(out), epilogue, stream));
  } else {
    const Tensor packed = packed_weight<T>(shape, weight, stream);
    const WideMap<T> from(source, p.groups, stream);
    STD_CUDA_CHECK(cuda::conv_gather(shape, from.map, from.data, data<T>(packed), map_of(out), mutable_data<T>(out),
                                     epilogue, multiprocessors(source), stream));
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor conv_transpose2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const OptionalTensor& scale, const OptionalTensor& shift, const OptionalTensor& residual,
                        const Steps& stride, const Steps& padding, const Steps& output_padding, int64_t groups,
                        const Steps& dilation, int64_t activation, double negative_slope, bool residual_last) {
  const ConvTransposeParams p = check_conv_transpose2d(input, weight, bias, scale, shift, residual, stride, padding,
                                                       output_padding, groups, dilation, activation, negative_slope);
  const DeviceGuard guard(input.get_device_index());
  const MemoryFormat format = memory_format_of(input);
  Tensor out = empty_with_format(input, {p.batch, p.out_channels, p.out_height, p.out_width}, format);
  if (out.numel() == 0) return out;
  // Whatever its strides: a residual is read with the output's.
  const OptionalTensor added = residual ? torch::stable::contiguous(*residual, format) : residual;
  const ScalarType wide = wide_type(input);
  const OptionalTensor vectors[] = {dense(bias, wide), dense(scale, wide), dense(shift, wide)};
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "conv_transpose2d", [&] {
    using A = Arithmetic<scalar_t>;
    convolve<scalar_t>(
        p, true, input, weight, out,
        {data<A>(vectors[0]), data<A>(vectors[1]), data<A>(vectors[2]), data<cuda::DeviceType<scalar_t>>(added),
         activation, static_cast<A>(negative_slope), residual_last});
  });
  return out;
}

Tensor conv_transpose2d_grad_input(const Tensor& grad, const Tensor& weight, int64_t height, int64_t width,
                                   const Steps& stride, const Steps& padding, int64_t groups, const Steps& dilation) {
  const ConvTransposeParams p =
      check_conv_transpose2d_grad_input(grad, weight, height, width, stride, padding, groups, dilation);
  const DeviceGuard guard(grad.get_device_index());
  Tensor grad_input = empty_with_format(grad, {p.batch, p.in_channels, height, width}, memory_format_of(grad));
  if (grad_input.numel() == 0) return grad_input;
  STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "conv_transpose2d_grad_input",
                              [&] { convolve<scalar_t>(p, false, grad, weight, grad_input, Epilogue<scalar_t>{}); });
  return grad_input;
}

Tensor conv_transpose2d_grad_weight(const Tensor& input, const Tensor& grad, int64_t kernel_height,
                                    int64_t kernel_width, const Steps& stride, const Steps& padding, int64_t groups,
                                    const Steps& dilation) {
  const ConvTransposeParams p =
      check_conv_transpose2d_grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation);
  const DeviceGuard guard(input.get_device_index());
  Tensor grad_weight = empty_with_format(input, {p.in_channels, p.out_channels / groups, kernel_height, kernel_width},
                                         memory_format_of(input));
  if (grad_weight.numel() == 0) return grad_weight;
  if (p.batch == 0) return torch::stable::zero_(grad_weight);
  const cuda::ConvShape shape = shape_of(p, true);
  const int64_t parts = cuda::conv_grad_weight_parts(shape, p.batch * p.height * p.width);
  const Tensor partials = empty({parts * grad_weight.numel()}, wide_type(input), input);
  STRUCTOPS_DISPATCH_FLOATING(input.scalar_type(), "conv_transpose2d_grad_weight", [&] {
    using T = cuda::DeviceType<scalar_t>;
    using A = Arithmetic<scalar_t>;
    const cudaStream_t stream = cuda::current_stream(input);
    if (is_depthwise(shape)) {
      STD_CUDA_CHECK(cuda::conv_depthwise_grad_partials(shape, map_of(input), data<T>(input), map_of(grad),
                                                        data<T>(grad), parts, mutable_data<A>(partials), stream));
    } else {
      const WideMap<T> x(input, groups, stream), g(grad, groups, stream);
      STD_CUDA_CHECK(cuda::conv_grad_weight_partials(shape, x.map, x.data, g.map, g.data, parts,
                                                     mutable_data<A>(partials), stream));
    }
    STD_CUDA_CHECK(cuda::conv_grad_weight_total(
        shape, data<A>(partials), parts, p.in_channels / groups * grad_weight.stride(0), grad_weight.stride(0),
        grad_weight.stride(1), grad_weight.stride(2), grad_weight.stride(3), mutable_data<T>(grad_weight), stream));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_weight;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("conv_transpose2d", TORCH_BOX(&conv_transpose2d));
  m.impl("conv_transpose2d_grad_input", TORCH_BOX(&conv_transpose2d_grad_input));
  m.impl("conv_transpose2d_grad_weight", TORCH_BOX(&conv_transpose2d_grad_weight));
}

}  // namespace structops
