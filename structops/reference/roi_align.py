"""RoI Align by its definition, one RoI at a time."""

from __future__ import annotations

import math

import torch

COORDINATE_LIMIT = 2.0**30  # feature pixels; finite coordinates are clamped to it


def axis_weights(
    low: float,
    high: float,
    spatial_scale: float,
    pooled: int,
    sampling_ratio: int,
    aligned: bool,
    extent: int,
) -> torch.Tensor | None:
    """How much each pixel of one axis of the map contributes to each bin.

    The mean of a bin's bilinear samples is a product of the two axes (a sample counts when it is inside along both),
    so an RoI's output is ``rows @ map @ columns.T`` with a matrix like this for each axis.

    Args:
        low, high: the box's edges along the axis, in image pixels.
        extent: the map's length along the axis, in feature pixels.

    Returns:
        float64 ``[pooled, extent]``, or ``None`` for a box that is not finite.
    """
    offset = 0.5 if aligned else 0.0
    low, high = low * spatial_scale - offset, high * spatial_scale - offset
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    low, high = (min(max(v, -COORDINATE_LIMIT), COORDINATE_LIMIT) for v in (low, high))
    length = high - low
    if not aligned:
        length = max(length, 1.0)
    bin_size = length / pooled
    samples = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_size), 0)
    weights = torch.zeros(pooled, extent, dtype=torch.float64)
    if samples == 0:
        return weights
    for p in range(pooled):
        start = low + p * bin_size
        # Only the samples that can be inside: a huge box on a small map has billions outside.
        first, last = 0, samples
        if samples > 4 and bin_size != 0:
            a, b = sorted((edge - start) * samples / bin_size - 0.5 for edge in (-1.0, float(extent)))
            first, last = max(math.floor(a) - 2, 0), min(math.ceil(b) + 3, samples)
        if first >= last:
            continue
        at = start + (torch.arange(first, last, dtype=torch.float64) + 0.5) * bin_size / samples
        at = at[(at >= -1.0) & (at <= extent)].clamp(min=0)
        left = at.long().clamp(max=extent - 1)
        fraction = torch.where(left >= extent - 1, 0.0, at - left)
        weights[p].index_add_(0, left, (1 - fraction) / samples)
        weights[p].index_add_(0, (left + 1).clamp(max=extent - 1), fraction / samples)
    return weights


def roi_weights(
    roi: list[float],
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    map_shape: tuple[int, ...],
) -> tuple[int, torch.Tensor, torch.Tensor] | None:
    """Image index, row weights ``[PH, H]`` and column weights ``[PW, W]`` of one RoI on a map ``(N, C, H, W)``.

    ``None``: the box is not finite or the index out of range, and its output NaN.
    """
    index, x1, y1, x2, y2 = roi
    batch, _, height, width = map_shape
    if not 0 <= index < batch:
        return None
    rows = axis_weights(y1, y2, spatial_scale, pooled[0], sampling_ratio, aligned, height)
    columns = axis_weights(x1, x2, spatial_scale, pooled[1], sampling_ratio, aligned, width)
    if rows is None or columns is None:
        return None
    return int(index), rows, columns


def _used(weights: torch.Tensor) -> slice:
    """From the first to the last pixel that has a weight in any bin of ``weights [pooled, extent]``."""
    pixels = weights.any(0).nonzero()[:, 0].tolist()
    return slice(pixels[0], pixels[-1] + 1) if pixels else slice(0)


def roi_align(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """RoI Align of ``input [N, C, H, W]`` at ``rois [K, 5]`` (batch index, x1, y1, x2, y2).

    Returns ``[K, C, pooled_height, pooled_width]``. A box that is not finite, or whose batch index is out of range,
    gives NaN.
    """
    pooled = (pooled_height, pooled_width)
    compute = torch.promote_types(input.dtype, torch.float32)
    crops = []
    for roi in rois.detach().double().tolist():
        weights = roi_weights(roi, spatial_scale, pooled, sampling_ratio, aligned, tuple(input.shape))
        if weights is None:
            crops.append(input.new_full((input.shape[1], *pooled), math.nan, dtype=compute))
            continue
        index, rows, columns = weights
        # A pixel of weight zero is not read, so an infinity there does not turn into NaN.
        y, x = rows.any(0).nonzero()[:, 0], columns.any(0).nonzero()[:, 0]
        patch = input[index][:, y.to(input.device)][:, :, x.to(input.device)].to(compute)
        crops.append(rows[:, y].to(patch) @ patch @ columns[:, x].T.to(patch))
    if not crops:
        return input.new_zeros(0, input.shape[1], *pooled) + 0 * input.sum()
    return torch.stack(crops).to(input.dtype)


def roi_align_backward(
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
    aligned: bool,
) -> torch.Tensor:
    """Gradient of :func:`roi_align` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, C, H, W]``.

    A box that is not finite contributes nothing.
    """
    pooled, shape = (pooled_height, pooled_width), (batch_size, channels, height, width)
    grad_input = grad.new_zeros(shape, dtype=torch.promote_types(grad.dtype, torch.float32))
    for roi, g in zip(rois.detach().double().tolist(), grad.to(grad_input.dtype), strict=True):
        weights = roi_weights(roi, spatial_scale, pooled, sampling_ratio, aligned, shape)
        if weights is not None:
            index, rows, columns = weights
            y, x = _used(rows), _used(columns)
            # Bin by bin, not as matrix products: the order in which those add up depends on the number of threads.
            across = sum(rows[p, y].to(g)[:, None] * g[:, p, None, :] for p in range(pooled_height))
            grad_input[index, :, y, x] += sum(columns[p, x].to(g) * across[:, :, p, None] for p in range(pooled_width))
    return grad_input.to(grad.dtype)
