"""Transposed convolution by its definition: every input pixel adds its own copy of the kernel to the output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

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


def _taps(
    kernel: Sequence[int], size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[int, int, slice, slice]]:
    """For each tap of the kernel: where on the unpadded output the input's pixels put their product with it."""

    def along(axis: int, at: int) -> slice:
        first = at * dilation[axis]
        return slice(first, first + (size[axis] - 1) * stride[axis] + 1, stride[axis])

    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            yield ky, kx, along(0, ky), along(1, kx)


def _canvas(kernel, size, stride, dilation) -> tuple[int, ...]:
    """The output's size without padding."""
    return tuple((n - 1) * s + d * (k - 1) + 1 for k, n, s, d in zip(kernel, size, stride, dilation, strict=True))


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
    height, width = _canvas(kernel, size, stride, dilation)
    out = x.new_zeros(input.shape[0], groups, weight.shape[1], height, width)
    for ky, kx, rows, columns in _taps(kernel, size, stride, dilation):
        out[..., rows, columns] += torch.einsum("ngchw,gcd->ngdhw", x, w[..., ky, kx])
    out = out.flatten(1, 2)
    (top, left), (below, right) = padding, output_padding
    out = F.pad(out, (-left, right - left, -top, below - top))
    for vector, combine in ((bias, torch.add), (scale, torch.mul), (shift, torch.add)):
        if vector is not None:
            out = combine(out, vector.to(wide)[:, None, None])
    if residual is not None and not residual_after_activation:
        out = out + residual.to(wide)
    out = activate(out, activation, negative_slope)
    if residual is not None and residual_after_activation:
        out = out + residual.to(wide)
    return out.to(input.dtype)


def _unpadded(grad, canvas, padding, groups):
    """``grad`` on the output without padding: zero where there is none, without what output_padding added."""
    (top, left), (height, width) = padding, canvas
    grad = F.pad(grad, (left, width - left - grad.shape[3], top, height - top - grad.shape[2]))
    return _by_group(grad, groups)


def conv_transpose2d_grad_input(grad, weight, height, width, stride, padding, groups, dilation):
    """Every input pixel gathers what its copy of the kernel covers: ``[N, Co, Ho, Wo]`` to ``[N, Ci, H, W]``."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    kernel, size = weight.shape[2:], (height, width)
    g = _unpadded(grad.to(wide), _canvas(kernel, size, stride, dilation), padding, groups)
    w = _by_group(weight.to(wide), groups, 0)
    found = g.new_zeros(grad.shape[0], groups, weight.shape[0] // groups, height, width)
    for ky, kx, rows, columns in _taps(kernel, size, stride, dilation):
        found = found + torch.einsum("ngdhw,gcd->ngchw", g[..., rows, columns], w[..., ky, kx])
    return found.flatten(1, 2).to(grad.dtype)


def conv_transpose2d_grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation):
    """``[Ci, Co / groups, kh, kw]``: for every tap, the products of the pixels that met in it."""
    wide = torch.promote_types(input.dtype, torch.float32)
    kernel, size = (kernel_height, kernel_width), input.shape[2:]
    x = _by_group(input.to(wide), groups)
    g = _unpadded(grad.to(wide), _canvas(kernel, size, stride, dilation), padding, groups)
    taps = [
        torch.einsum("ngchw,ngdhw->gcd", x, g[..., rows, columns])
        for _, _, rows, columns in _taps(kernel, size, stride, dilation)
    ]
    return torch.stack(taps, -1).unflatten(-1, kernel).flatten(0, 1).to(input.dtype)
