"""Transposed convolution by its definition: every input pixel adds its own copy of the kernel to the output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

#: a number for each in the dispatcher's schema
ACTIVATIONS = ("none", "relu", "leaky_relu", "gelu", "silu", "sigmoid")


def activate(x: torch.Tensor, activation: int, negative_slope: float) -> torch.Tensor:
    name = ACTIVATIONS[activation]
    if name == "relu":
        return torch.where(x <= 0, 0, x)  # NaN stays
    if name == "leaky_relu":
        return torch.where(x <= 0, x * negative_slope, x)
    if name == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    if name == "silu":
        return x * torch.sigmoid(x)
    return torch.sigmoid(x) if name == "sigmoid" else x


def extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Outputs along one axis, before output_padding."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1


def output_size(input: torch.Tensor, weight: torch.Tensor, stride, padding, output_padding, dilation) -> list[int]:
    """Height and width of the output of ``input`` ``[..., H, W]``."""
    axes = zip(input.shape[-2:], weight.shape[2:], stride, padding, dilation, output_padding, strict=True)
    return [extent(*axis) + extra for *axis, extra in axes]


def _taps(
    kernel: Sequence[int], size: Sequence[int], out: Sequence[int], stride, padding, dilation
) -> Iterator[tuple[int, int, tuple, tuple]]:
    """For each tap of the kernel, the input's pixels that it takes to the output, and where: two pairs of slices."""

    def along(axis: int, at: int) -> tuple[slice, slice]:
        first, step = at * dilation[axis] - padding[axis], stride[axis]  # where pixel 0 goes
        begin = max(0, -(first // step))
        end = max(begin, min(size[axis], (out[axis] - 1 - first) // step + 1))
        return slice(begin, end), slice(first + begin * step, first + end * step, step) if end > begin else slice(0, 0)

    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            (rows, to_rows), (columns, to_columns) = along(0, ky), along(1, kx)
            yield ky, kx, (..., rows, columns), (..., to_rows, to_columns)


def _by_group(x: torch.Tensor, groups: int, dim: int = 1) -> torch.Tensor:
    return x.unflatten(dim, (groups, x.shape[dim] // groups))


def conv_transpose2d(
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
    activation,
    negative_slope,
    residual_after_activation,
):
    """``input`` [N, Ci, H, W], ``weight`` [Ci, Co / groups, kh, kw]; see :func:`structops.ops.conv_transpose2d`."""
    wide = torch.promote_types(input.dtype, torch.float32)
    x, w = _by_group(input.to(wide), groups), _by_group(weight.to(wide), groups, 0)
    kernel, size = weight.shape[2:], input.shape[2:]
    height, width = output_size(input, weight, stride, padding, output_padding, dilation)
    out = x.new_zeros(input.shape[0], groups, weight.shape[1], height, width)
    for ky, kx, pixels, places in _taps(kernel, size, (height, width), stride, padding, dilation):
        out[places] += torch.einsum("ngchw,gcd->ngdhw", x[pixels], w[..., ky, kx])
    out = out.flatten(1, 2)
    for vector, combine in ((bias, torch.add), (scale, torch.mul), (shift, torch.add)):
        if vector is not None:
            out = combine(out, vector.to(wide)[:, None, None])
    if residual is not None and not residual_after_activation:
        out = out + residual.to(wide)
    out = activate(out, activation, negative_slope)
    if residual is not None and residual_after_activation:
        out = out + residual.to(wide)
    return out.to(input.dtype)


def conv_transpose2d_grad_input(grad, weight, height, width, stride, padding, groups, dilation):
    """Every input pixel gathers what its copy of the kernel covers: ``[N, Co, Ho, Wo]`` to ``[N, Ci, H, W]``."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    g, w = _by_group(grad.to(wide), groups), _by_group(weight.to(wide), groups, 0)
    found = g.new_zeros(grad.shape[0], groups, weight.shape[0] // groups, height, width)
    for ky, kx, pixels, places in _taps(weight.shape[2:], (height, width), grad.shape[2:], stride, padding, dilation):
        found[pixels] += torch.einsum("ngdhw,gcd->ngchw", g[places], w[..., ky, kx])
    return found.flatten(1, 2).to(grad.dtype)


def conv_transpose2d_grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation):
    """``[Ci, Co / groups, kh, kw]``: for every tap, the products of the pixels that met in it."""
    wide = torch.promote_types(input.dtype, torch.float32)
    kernel = (kernel_height, kernel_width)
    x, g = _by_group(input.to(wide), groups), _by_group(grad.to(wide), groups)
    taps = [
        torch.einsum("ngchw,ngdhw->gcd", x[pixels], g[places])
        for _, _, pixels, places in _taps(kernel, input.shape[2:], grad.shape[2:], stride, padding, dilation)
    ]
    return torch.stack(taps, -1).unflatten(-1, kernel).flatten(0, 1).to(input.dtype)
