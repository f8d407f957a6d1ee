"""What the fake kernels and autograd formulas of the RoI ops share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops._layout import memory_format


def empty_crops(input: torch.Tensor, rois: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
    """The output's shape and strides, for a fake kernel."""
    size = (rois.shape[0], channels, height, width)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format(input))


def empty_grad_input(grad: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The input gradient's, likewise."""
    return torch.empty(size, dtype=grad.dtype, device=grad.device, memory_format=memory_format(grad))


def save_shape_and_rois(ctx, inputs, output) -> None:
    """Of a forward with the arguments (input, rois, options): what its backward needs."""
    input, rois, *ctx.options = inputs
    ctx.input_shape = input.shape
    ctx.save_for_backward(rois)


def save_rois(ctx, inputs, output) -> None:
    """The same of a backward with the arguments (grad, rois, options)."""
    _, rois, *ctx.options = inputs
    ctx.save_for_backward(rois)


def without_ignored(grad_grad: torch.Tensor, rois: torch.Tensor, spatial_scale: float, batch: int) -> torch.Tensor:
    """``grad_grad [K, C, PH, PW]`` with zeros for the boxes that a backward ignores because the forward is NaN."""
    index, corners = rois[:, 0], rois[:, 1:].double() * spatial_scale
    ignored = ~(corners.isfinite().all(1) & (index >= 0) & (index < batch))
    return grad_grad.masked_fill(ignored[:, None, None, None], 0)
