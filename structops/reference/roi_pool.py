"""RoI Pool by its definition, one bin at a time."""

from __future__ import annotations

import math

import torch

from structops.reference.roi_align import COORDINATE_LIMIT


def nearest(value: float) -> int:
    """The nearest integer, halves away from zero (Python's ``round`` takes them to even)."""
    whole = math.floor(abs(value))
    return int(math.copysign(whole + (abs(value) - whole >= 0.5), value))


def axis_bins(low: float, high: float, spatial_scale: float, pooled: int, extent: int) -> list[tuple[int, int]] | None:
    """Which pixels of one axis of the map lie in each bin: the first, and the one after the last.

    Both ends of the box are rounded to pixels and belong to it; it is cut into bins of equal length, each of which
    takes every pixel that it meets, so that neighbours share a pixel where the length is not a multiple.

    Args:
        low, high: the box's edges along the axis, in image pixels.
        extent: the map's length along the axis, in feature pixels.

    Returns:
        one pair per bin, clipped to the map, or ``None`` for a box that is not finite.
    """
    low, high = low * spatial_scale, high * spatial_scale
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    start, end = (nearest(min(max(v, -COORDINATE_LIMIT), COORDINATE_LIMIT)) for v in (low, high))
    length = max(end - start + 1, 1)

    def clip(pixel: int) -> int:
        return min(max(pixel, 0), extent)

    # In integers, so exact: floor(p * length / pooled) and ceil((p + 1) * length / pooled).
    return [(clip(start + p * length // pooled), clip(start - (-(p + 1) * length // pooled))) for p in range(pooled)]


def roi_bins(
    roi: list[float], spatial_scale: float, pooled: tuple[int, int], map_shape: tuple[int, ...]
) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]] | None:
    """Image index, bins along y and bins along x of one RoI on a map ``(N, C, H, W)``.

    ``None``: the box is not finite or the index out of range, and its output NaN.
    """
    index, x1, y1, x2, y2 = roi
    batch, _, height, width = map_shape
    if not 0 <= index < batch:
        return None
    rows = axis_bins(y1, y2, spatial_scale, pooled[0], height)
    columns = axis_bins(x1, x2, spatial_scale, pooled[1], width)
    if rows is None or columns is None:
        return None
    return int(index), rows, columns


def roi_pool(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    with_argmax: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """RoI Pool of ``input [N, C, H, W]`` at ``rois [K, 5]`` (batch index, x1, y1, x2, y2).

    Returns the largest value of each bin ``[K, C, pooled_height, pooled_width]``, and where it was first found in row
    order, as ``y * W + x``, int32 of the same shape (``[0]`` without ``with_argmax``). NaN is larger than any number.
    A bin without a pixel gives 0 from -1; a box that is not finite, or whose batch index is out of range, NaN from -1.
    """
    pooled = (pooled_height, pooled_width)
    shape = (rois.shape[0], input.shape[1], *pooled)
    argmax = torch.full(shape, -1, dtype=torch.int32, device=input.device)
    crops = []
    for k, roi in enumerate(rois.detach().double().tolist()):
        bins = roi_bins(roi, spatial_scale, pooled, tuple(input.shape))
        if bins is None:
            crops.append(input.new_full(shape[1:], math.nan))
            continue
        image = input[bins[0]]
        for ph, (top, bottom) in enumerate(bins[1]):
            for pw, (left, right) in enumerate(bins[2]):
                if top < bottom and left < right and image.shape[0]:
                    # Of equal values (and of NaN) torch.max tells the first.
                    at = image.detach()[:, top:bottom, left:right].flatten(1).max(1).indices
                    y, x = top + at // (right - left), left + at % (right - left)
                    argmax[k, :, ph, pw] = y * input.shape[3] + x
        found = argmax[k].flatten(1).long()
        if image.numel():
            values = image.flatten(1).gather(1, found.clamp(min=0))
            crops.append(values.masked_fill(found < 0, 0).view(shape[1:]))
        else:
            crops.append(input.new_zeros(shape[1:]))
    output = torch.stack(crops) if crops else input.new_zeros(shape) + 0 * input.sum()
    return output, argmax if with_argmax else argmax.new_empty(0)


def roi_pool_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """Gradient of :func:`roi_pool` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, C, H, W]``.

    Each bin's gradient goes to the pixel that ``argmax [K, C, PH, PW]`` names. A box that is not finite contributes
    nothing, whatever its argmax.
    """
    pooled, shape = (pooled_height, pooled_width), (batch_size, channels, height, width)
    compute = torch.promote_types(grad.dtype, torch.float32)
    grad_input = grad.new_zeros((batch_size, channels, height * width), dtype=compute)
    for k, roi in enumerate(rois.detach().double().tolist()):
        bins = roi_bins(roi, spatial_scale, pooled, shape)
        if bins is None or grad_input.numel() == 0:
            continue
        for ph in range(pooled_height):
            for pw in range(pooled_width):
                at = argmax[k, :, ph, pw].long()
                some = ((at >= 0) & (at < height * width)).nonzero()[:, 0]
                # No pixel twice here (a channel has one), so the sum is the same in every run.
                grad_input[bins[0], some, at[some]] += grad[k, some, ph, pw].to(compute)
    return grad_input.view(shape).to(grad.dtype)
