"""What the two position-sensitive RoI ops share: checks and shapes."""

from __future__ import annotations

import torch

from structops._checks import require
from structops.ops._boxes import check_grad, check_pooling, check_rois
from structops.ops._rois import empty_crops


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
    channels = input.shape[1] // (pooled_height * pooled_width)
    return empty_crops(input, rois, channels, pooled_height, pooled_width)
