"""Position-sensitive RoI Align by its definition, one RoI at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from structops.reference.roi_align import roi_weights

Weights = tuple[int, torch.Tensor, torch.Tensor] | None


def pool_bins(
    input: torch.Tensor,
    rois: torch.Tensor,
    pooled: tuple[int, int],
    weights_of: Callable[[list[float], tuple[int, ...]], Weights],
) -> torch.Tensor:
    """Each class and bin from its own channel of ``input [N, C * PH * PW, H, W]``: ``[K, C, PH, PW]``.

    Args:
        weights_of: from a row of ``rois [K, 5]`` and the input's shape: image index, row weights ``[PH, H]`` and column
            weights ``[PW, W]``; ``None`` makes the RoI NaN.
    """
    batch, _, height, width = input.shape
    compute = torch.promote_types(input.dtype, torch.float32)
    classes = input.shape[1] // (pooled[0] * pooled[1])
    by_bin = input.reshape(batch, classes, *pooled, height, width)
    crops = []
    for roi in rois.detach().double().tolist():
        weights = weights_of(roi, tuple(input.shape))
        if weights is None:
            crops.append(input.new_full((classes, *pooled), math.nan, dtype=compute))
            continue
        index, rows, columns = weights[0], weights[1].to(input.device), weights[2].to(input.device)
        y, x = rows.any(0).nonzero()[:, 0], columns.any(0).nonzero()[:, 0]
        patch = by_bin[index][..., y, :][..., x].to(compute)
        rows, columns = rows[:, y], columns[:, x]
        # A pixel of weight zero is not read, so an infinity there does not turn into NaN.
        used = rows.ne(0)[:, None, :, None] & columns.ne(0)[None, :, None, :]
        crops.append(torch.einsum("py,cpqyx,qx->cpq", rows.to(patch), torch.where(used, patch, 0), columns.to(patch)))
    if not crops:
        return input.new_zeros(0, classes, *pooled) + 0 * input.sum()
    return torch.stack(crops).to(input.dtype)


def spread_bins(
    grad: torch.Tensor,
    rois: torch.Tensor,
    shape: tuple[int, int, int, int],
    weights_of: Callable[[list[float], tuple[int, ...]], Weights],
) -> torch.Tensor:
    """The transpose of :func:`pool_bins`: ``grad [K, C, PH, PW]`` to ``shape`` ``[N, C * PH * PW, H, W]``."""
    _, classes, *pooled = grad.shape
    batch, _, height, width = shape
    compute = torch.promote_types(grad.dtype, torch.float32)
    grad_input = grad.new_zeros((batch, classes, *pooled, height, width), dtype=compute)
    for roi, g in zip(rois.detach().double().tolist(), grad.to(compute), strict=True):
        weights = weights_of(roi, shape)
        if weights is not None:
            index, rows, columns = weights
            grad_input[index] += torch.einsum("py,cpq,qx->cpqyx", rows.to(g), g, columns.to(g))
    return grad_input.reshape(shape).to(grad.dtype)


def _weights_of(spatial_scale: float, pooled: tuple[int, int], sampling_ratio: int):
    # Light-Head R-CNN's sampling: half a pixel is subtracted, and boxes have no minimum size.
    return lambda roi, shape: roi_weights(roi, spatial_scale, pooled, sampling_ratio, True, shape)


def ps_roi_align(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> torch.Tensor:
    """Position-sensitive RoI Align of ``input [N, C * PH * PW, H, W]`` at ``rois [K, 5]`` (index, x1, y1, x2, y2).

    Returns ``[K, C, PH, PW]``: class c and bin (ph, pw) from channel ``(c * PH + ph) * PW + pw``. A box that is not
    finite, or whose batch index is out of range, gives NaN.
    """
    pooled = (pooled_height, pooled_width)
    return pool_bins(input, rois, pooled, _weights_of(spatial_scale, pooled, sampling_ratio))


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
    """Gradient of :func:`ps_roi_align` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, channels, H, W]``.

    A box that is not finite contributes nothing.
    """
    weights_of = _weights_of(spatial_scale, (pooled_height, pooled_width), sampling_ratio)
    return spread_bins(grad, rois, (batch_size, channels, height, width), weights_of)
