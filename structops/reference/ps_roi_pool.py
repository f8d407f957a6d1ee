"""Position-sensitive RoI Pool by its definition, one RoI at a time."""

from __future__ import annotations

import math

import torch

from structops.reference.ps_roi_align import Weights, pool_bins, spread_bins
from structops.reference.roi_align import COORDINATE_LIMIT


def nearest(value: float) -> int:
    """The nearest integer, halves away from zero, as C's ``round``."""
    whole = math.trunc(value)
    return whole + (abs(value - whole) >= 0.5) * (1 if value > 0 else -1)


def axis_means(low: float, high: float, spatial_scale: float, pooled: int, extent: int) -> torch.Tensor | None:
    """How much each pixel of one axis of the map contributes to each bin.

    A bin is the mean of the pixels that it touches. Its edges are ratios of integers and taken exactly: in floating
    point ``7 * (n / 7)`` can be more than ``n``, and the bin one pixel longer. The last pixel of the map is never
    read: torchvision clips bins to it.

    Args:
        low, high: the box's edges along the axis, in image pixels.
        extent: the map's length along the axis, in feature pixels.

    Returns:
        float64 ``[pooled, extent]``, or ``None`` for a box that is not finite.
    """
    low, high = low * spatial_scale, high * spatial_scale
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    first, last = (nearest(min(max(v, -COORDINATE_LIMIT), COORDINATE_LIMIT)) for v in (low, high))
    length = max(last - first, 1)
    weights = torch.zeros(pooled, extent, dtype=torch.float64)
    for p in range(pooled):
        begin, end = first + p * length // pooled, first - (-(p + 1) * length // pooled)
        begin, end = (min(max(edge, 0), extent - 1) for edge in (begin, end))
        if begin < end:
            weights[p, begin:end] = 1 / (end - begin)
    return weights


def _weights_of(spatial_scale: float, pooled: tuple[int, int]):
    def weights(roi: list[float], shape: tuple[int, ...]) -> Weights:
        index, x1, y1, x2, y2 = roi
        batch, _, height, width = shape
        if not 0 <= index < batch:
            return None
        rows = axis_means(y1, y2, spatial_scale, pooled[0], height)
        columns = axis_means(x1, x2, spatial_scale, pooled[1], width)
        return None if rows is None or columns is None else (int(index), rows, columns)

    return weights


def ps_roi_pool(
    input: torch.Tensor, rois: torch.Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> torch.Tensor:
    """Position-sensitive RoI Pool of ``input [N, C * PH * PW, H, W]`` at ``rois [K, 5]`` (index, x1, y1, x2, y2).

    Returns ``[K, C, PH, PW]``: class c and bin (ph, pw) from channel ``(c * PH + ph) * PW + pw``; a bin without
    pixels is zero. A box that is not finite, or whose batch index is out of range, gives NaN.
    """
    pooled = (pooled_height, pooled_width)
    return pool_bins(input, rois, pooled, _weights_of(spatial_scale, pooled))


def ps_roi_pool_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """Gradient of :func:`ps_roi_pool` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, channels, H, W]``.

    A box that is not finite contributes nothing.
    """
    weights_of = _weights_of(spatial_scale, (pooled_height, pooled_width))
    return spread_bins(grad, rois, (batch_size, channels, height, width), weights_of)
