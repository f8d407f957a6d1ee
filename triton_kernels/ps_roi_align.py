"""Position-sensitive RoI Align, forward and backward; the kernels are those of both position-sensitive ops."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._ps_roi import Axes, backward, forward, typical
from structops.triton_kernels._roi_axes import roi_axes


def _axes_of(rois: torch.Tensor, spatial_scale: float, pooled: tuple[int, int], sampling_ratio: int) -> Axes:
    # Light-Head R-CNN's sampling is RoI Align's with half a pixel subtracted.
    return lambda map_shape, dtype, tile: roi_axes(
        rois, spatial_scale, pooled, sampling_ratio, True, map_shape, dtype, tile
    )


def ps_roi_align(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> torch.Tensor:
    """``input [N, C * PH * PW, H, W]`` at ``rois [K, 5]``: ``[K, C, PH, PW]``."""
    pooled = (pooled_height, pooled_width)
    out, launches = forward(input, _axes_of(rois, spatial_scale, pooled, sampling_ratio), len(rois), pooled)
    run(input.device, launches)
    return out


def ps_roi_align_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> torch.Tensor:
    """Gradient of :func:`ps_roi_align` with respect to its input: ``[K, C, PH, PW]`` to ``[N, C * PH * PW, H, W]``."""
    axes_of = _axes_of(rois, spatial_scale, (pooled_height, pooled_width), sampling_ratio)
    grad_input, launches = backward(grad, axes_of, (batch_size, channels, height, width))
    run(grad.device, launches)
    return grad_input


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for ratio in (2, 0):
        for name, launch in typical(lambda rois, ratio=ratio: _axes_of(rois, 1 / 16, (7, 7), ratio)):
            yield f"{name}-sampling{ratio}", launch
