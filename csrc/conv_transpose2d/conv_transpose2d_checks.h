// Argument checks that the CPU and CUDA bindings of the transposed convolution share; the same in Python, for fake
// kernels and the other backends, is structops/ops/conv_transpose2d.py.
#pragma once
#include <algorithm>
#include <cmath>

#include "common/tensor.h"
#include "conv_transpose2d/conv_transpose2d.h"

namespace structops {

// Products of a step (or the number of groups) and a size stay far from 2^63.
constexpr int64_t kLargestConvTransposeStep = int64_t{1} << 20, kLargestConvTransposeSize = int64_t{1} << 40;

inline void check_steps(const char* op, const char* name, const std::vector<int64_t>& steps, int64_t least) {
  STRUCTOPS_CHECK(steps.size() == 2, op, ": ", name, " must have 2 numbers (height, width), got ", steps.size());
  for (const int64_t step : steps)
    STRUCTOPS_CHECK(step >= least && step <= kLargestConvTransposeStep, op, ": ", name, " must be from ", least, " to ",
                    kLargestConvTransposeStep, ", got ", step);
}

inline void check_map(const char* op, const char* name, const Tensor& t, const Tensor& like, const char* like_name) {
  STRUCTOPS_CHECK(t.dim() == 4, op, ": ", name, " must be [N, C, H, W], got ", t.dim(), " dimensions");
  STRUCTOPS_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", name, " must have the type of ", like_name);
  STRUCTOPS_CHECK(t.device() == like.device(), op, ": ", name, " must be on the same device as ", like_name);
}

// Rank, type and device of `first` (named `name`), and the steps.
inline void check_conv_transpose(const char* op, const char* name, const Tensor& first,
                                 const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                                 int64_t groups, const std::vector<int64_t>& dilation) {
  check_floating(op, name, first);
  STRUCTOPS_CHECK(first.dim() == 4, op, ": ", name, " must be [N, C, H, W], got ", first.dim(), " dimensions");
  STRUCTOPS_CHECK(first.size(2) >= 1 && first.size(3) >= 1, op, ": ", name, " must be at least 1 x 1 pixels");
  check_steps(op, "stride", stride, 1);
  check_steps(op, "padding", padding, 0);
  check_steps(op, "dilation", dilation, 1);
  STRUCTOPS_CHECK(groups >= 1 && groups <= kLargestConvTransposeStep, op, ": groups must be from 1 to ",
                  kLargestConvTransposeStep, ", got ", groups);
}

// weight [in_channels, out_channels / groups, kernel_height, kernel_width]
inline void check_conv_transpose_weight(const char* op, const Tensor& weight, const Tensor& first, const char* name,
                                        int64_t groups) {
  check_map(op, "weight", weight, first, name);
  STRUCTOPS_CHECK(weight.size(2) >= 1 && weight.size(3) >= 1, op, ": weight must have a kernel of at least 1 x 1");
  STRUCTOPS_CHECK(weight.size(0) % groups == 0, op, ": groups must divide the ", weight.size(0),
                  " input channels, got ", groups);
}

inline ConvTransposeParams conv_transpose_params(int64_t batch, int64_t in_channels, int64_t out_channels,
                                                 int64_t groups, int64_t height, int64_t width, int64_t out_height,
                                                 int64_t out_width, int64_t kernel_height, int64_t kernel_width,
                                                 const std::vector<int64_t>& stride,
                                                 const std::vector<int64_t>& padding,
                                                 const std::vector<int64_t>& dilation) {
  return {batch,         in_channels,  out_channels, groups,    height,     width,      out_height,  out_width,
          kernel_height, kernel_width, stride[0],    stride[1], padding[0], padding[1], dilation[0], dilation[1]};
}

// Outputs along one axis before output_padding.
inline int64_t conv_transpose_extent(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1;
}

inline ConvTransposeParams check_conv_transpose2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                                                  const OptionalTensor& scale, const OptionalTensor& shift,
                                                  const OptionalTensor& residual, const std::vector<int64_t>& stride,
                                                  const std::vector<int64_t>& padding,
                                                  const std::vector<int64_t>& output_padding, int64_t groups,
                                                  const std::vector<int64_t>& dilation, int64_t activation,
                                                  double negative_slope) {
  constexpr const char* op = "conv_transpose2d";
  check_conv_transpose(op, "input", input, stride, padding, groups, dilation);
  check_conv_transpose_weight(op, weight, input, "input", groups);
  STRUCTOPS_CHECK(weight.size(0) == input.size(1), op, ": weight must be [", input.size(1),
                  " input channels, output channels / groups, kernel height, kernel width], got ", weight.size(0),
                  " input channels");
  check_steps(op, "output_padding", output_padding, 0);
  int64_t size[2];
  for (int axis = 0; axis < 2; ++axis) {
    STRUCTOPS_CHECK(output_padding[axis] < std::max(stride[axis], dilation[axis]), op,
                    ": output_padding must be smaller than stride or dilation, got ", output_padding[axis]);
    size[axis] = output_padding[axis] + conv_transpose_extent(input.size(2 + axis), weight.size(2 + axis), stride[axis],
                                                              padding[axis], dilation[axis]);
    STRUCTOPS_CHECK(size[axis] >= 1, op, ": padding must leave at least one output pixel, got ", padding[axis],
                    " for an output of ", size[axis]);
  }
  const int64_t out_channels = weight.size(1) * groups;
  const std::pair<const char*, const OptionalTensor&> vectors[] = {{"bias", bias}, {"scale", scale}, {"shift", shift}};
  for (const auto& [name, t] : vectors) {
    if (!t) continue;
    check_floating(op, name, *t);
    STRUCTOPS_CHECK(t->dim() == 1 && t->size(0) == out_channels, op, ": ", name, " must be [", out_channels,
                    "], a number for each output channel");
    STRUCTOPS_CHECK(t->device() == input.device(), op, ": ", name, " must be on the same device as input");
  }
  if (residual) {
    check_map(op, "residual", *residual, input, "input");
    STRUCTOPS_CHECK(residual->size(0) == input.size(0) && residual->size(1) == out_channels &&
                        residual->size(2) == size[0] && residual->size(3) == size[1],
                    op, ": residual must have the shape of the output, [", input.size(0), ", ", out_channels, ", ",
                    size[0], ", ", size[1], "]");
  }
  STRUCTOPS_CHECK(activation >= 0 && activation < kActivations, op, ": activation must be from 0 to ", kActivations - 1,
                  ", got ", activation);
  STRUCTOPS_CHECK(std::isfinite(negative_slope), op, ": negative_slope must be finite, got ", negative_slope);
  return conv_transpose_params(input.size(0), input.size(1), out_channels, groups, input.size(2), input.size(3),
                               size[0], size[1], weight.size(2), weight.size(3), stride, padding, dilation);
}

// Whether an output of this size comes from an input of that one: the difference is an output_padding.
inline void check_conv_transpose_sizes(const char* op, const ConvTransposeParams& p) {
  const int64_t in[2] = {p.height, p.width}, out[2] = {p.out_height, p.out_width};
  const int64_t kernel[2] = {p.kernel_height, p.kernel_width}, stride[2] = {p.stride_height, p.stride_width};
  const int64_t padding[2] = {p.padding_height, p.padding_width}, dilation[2] = {p.dilation_height, p.dilation_width};
  for (int axis = 0; axis < 2; ++axis) {
    for (const int64_t length : {in[axis], kernel[axis]})
      STRUCTOPS_CHECK(length <= kLargestConvTransposeSize, op, ": input and kernel must not be longer than ",
                      kLargestConvTransposeSize, ", got ", length);
    const int64_t extra =
        out[axis] - conv_transpose_extent(in[axis], kernel[axis], stride[axis], padding[axis], dilation[axis]);
    STRUCTOPS_CHECK(in[axis] >= 1 && extra >= 0 && extra < std::max(stride[axis], dilation[axis]), op,
                    ": grad must have the size of the output for that input, kernel and stride, got ", out[axis],
                    " for an input of ", in[axis]);
  }
}

inline ConvTransposeParams check_conv_transpose2d_grad_input(const Tensor& grad, const Tensor& weight, int64_t height,
                                                             int64_t width, const std::vector<int64_t>& stride,
                                                             const std::vector<int64_t>& padding, int64_t groups,
                                                             const std::vector<int64_t>& dilation) {
  constexpr const char* op = "conv_transpose2d_grad_input";
  check_conv_transpose(op, "grad", grad, stride, padding, groups, dilation);
  check_conv_transpose_weight(op, weight, grad, "grad", groups);
  STRUCTOPS_CHECK(grad.size(1) == weight.size(1) * groups, op, ": grad must have ", weight.size(1) * groups,
                  " channels, got ", grad.size(1));
  const ConvTransposeParams p =
      conv_transpose_params(grad.size(0), weight.size(0), grad.size(1), groups, height, width, grad.size(2),
                            grad.size(3), weight.size(2), weight.size(3), stride, padding, dilation);
  check_conv_transpose_sizes(op, p);
  return p;
}

inline ConvTransposeParams check_conv_transpose2d_grad_weight(const Tensor& input, const Tensor& grad,
                                                              int64_t kernel_height, int64_t kernel_width,
                                                              const std::vector<int64_t>& stride,
                                                              const std::vector<int64_t>& padding, int64_t groups,
                                                              const std::vector<int64_t>& dilation) {
  constexpr const char* op = "conv_transpose2d_grad_weight";
  check_conv_transpose(op, "input", input, stride, padding, groups, dilation);
  check_map(op, "grad", grad, input, "input");
  STRUCTOPS_CHECK(input.size(0) == grad.size(0), op, ": grad must have the batch size of input");
  STRUCTOPS_CHECK(input.size(1) % groups == 0 && grad.size(1) % groups == 0, op,
                  ": groups must divide the channels of input and grad, got ", groups);
  STRUCTOPS_CHECK(kernel_height >= 1 && kernel_width >= 1, op, ": the kernel must be at least 1 x 1");
  const ConvTransposeParams p =
      conv_transpose_params(input.size(0), input.size(1), grad.size(1), groups, input.size(2), input.size(3),
                            grad.size(2), grad.size(3), kernel_height, kernel_width, stride, padding, dilation);
  check_conv_transpose_sizes(op, p);
  return p;
}

}  // namespace structops
