"""What the two position-sensitive RoI ops share: checks and shapes."""

from __future__ import annotations

import torch

from structops._checks import require
from structops._layout import memory_format
from structops.ops._boxes import check_grad, check_pooling, check_rois


def _check_channels(op: str, name: str, channels: int, pooled_height: int, pooled_width: int) -> None:
    require(
        channels % (pooled_height * pooled_width) == 0,
        lambda: (
            f"{op}: {name} must have a channel for each class and bin, a multiple of {pooled_height} x {pooled_width}, "
            f"got {channels} channels"
        ),
    )


def check_ps_rois(op: str, input: torch.Tensor, rois: torch.Tensor, spatial_scale, pooled_height, pooled_width) -> None:
    """Raise unless input is ``[N, C * PH * PW, H, W]`` and rois are ``[K, 5]``."""
    check_rois(op, "input", input, rois, input.shape[0] if input.dim() else 0)
    check_pooling(op, spatial_scale, pooled_height, pooled_width)
    _check_channels(op, "input", input.shape[1], pooled_height, pooled_width)


def check_ps_grad(
    op: str, grad: torch.Tensor, rois: torch.Tensor, spatial_scale, pooled: tuple[int, int], input_size
) -> None:
    """Raise unless grad is ``[K, C, PH, PW]`` for an input of ``input_size`` (N, C * PH * PW, H, W)."""
    batch, channels, _, _ = input_size
    check_rois(op, "grad", grad, rois, batch)
    check_pooling(op, spatial_scale, *pooled)
    _check_channels(op, "the input", channels, *pooled)
    check_grad(op, grad, (rois.shape[0], channels // (pooled[0] * pooled[1]), *pooled), input_size)


def empty_output(input: torch.Tensor, rois: torch.Tensor, pooled_height: int, pooled_width: int) -> torch.Tensor:
    size = (rois.shape[0], input.shape[1] // (pooled_height * pooled_width), pooled_height, pooled_width)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format(input))


def empty_grad_input(grad: torch.Tensor, input_size) -> torch.Tensor:
    return torch.empty(input_size, dtype=grad.dtype, device=grad.device, memory_format=memory_format(grad))


def without_ignored(grad_grad: torch.Tensor, rois: torch.Tensor, spatial_scale: float, batch: int) -> torch.Tensor:
    """``grad_grad [K, C, PH, PW]`` with zeros for the boxes that a backward ignores because the forward is NaN."""
    index, corners = rois[:, 0], rois[:, 1:].double() * spatial_scale
    ignored = ~(corners.isfinite().all(1) & (index >= 0) & (index < batch))
    return grad_grad.masked_fill(ignored[:, None, None, None], 0)
