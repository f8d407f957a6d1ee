"""RoI Align over the levels of a feature pyramid (Lin et al., "Feature Pyramid Networks", 2017), by its definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from structops.reference.roi_align import roi_align
from structops.reference.roi_align import roi_align_backward as single_level_backward

# Equation 1 is k = floor(k0 + log2(sqrt(area) / canonical_scale) + 1e-6). Without a logarithm: a box is on level k or
# above when its area reaches (canonical_scale * 2 ** (k - k0 - 1e-6)) ** 2, and this is 2 ** -2e-6.
SLACK = float.fromhex("0x1.ffffd17bd492fp-1")

NO_LEVEL = -1  # zeros, and no gradient: a row past its image's count, or a level that the pyramid lacks
BAD_LEVEL = -2  # NaN, and no gradient


def level_number(scale: float) -> int:
    """k of a map with ``scale = 2 ** -k``; other scales round towards zero. In float32, as torchvision takes it."""
    mantissa, exponent = math.frexp(scale)
    digits = round(mantissa * 2**24)
    if digits == 2**24:
        return -exponent
    return 1 - exponent if digits == 2**23 or scale > 1 else -exponent


def level_thresholds(scales: Sequence[float], canonical_scale: float, canonical_level: int) -> list[float]:
    """Ascending areas, in square image pixels; a box's level is the number of them that its area reaches.

    As many as the maps at most: where there are as many, the last one leads past the coarsest map.
    """
    finest, coarsest = level_number(scales[0]), level_number(scales[-1])
    steps = range(1, min(coarsest - finest, len(scales)) + 1)
    powers = [min(max(2 * (finest + i - canonical_level), -1000), 1000) for i in steps]
    return [canonical_scale * canonical_scale * math.ldexp(SLACK, power) for power in powers]


def assign_levels(
    rois: torch.Tensor,
    scales: Sequence[float],
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> torch.Tensor:
    """The place in the pyramid of each of ``rois [K, 5]``: int64 ``[K]``, :data:`NO_LEVEL` or :data:`BAD_LEVEL`."""
    maps = len(scales)
    if levels is None:
        x1, y1, x2, y2 = rois[:, 1:].double().unbind(1)
        area = (x2 - x1) * (y2 - y1)
        found = torch.zeros(rois.shape[0], dtype=torch.int64, device=rois.device)
        for threshold in level_thresholds(scales, canonical_scale, canonical_level):
            found += area >= threshold
        found = torch.where(found < maps, found, NO_LEVEL)
    else:
        found = torch.where((levels >= 0) & (levels < maps), levels.long(), BAD_LEVEL)
    if valid is not None and rois.shape[0] > 0:
        row = torch.arange(rois.shape[0], device=rois.device).view(valid.shape[0], -1)
        found = torch.where((row - row[:, :1] < valid[:, None]).flatten(), found, NO_LEVEL)
    return found


def multiscale_roi_align(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    scales: Sequence[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> torch.Tensor:
    """RoI Align of each of ``rois [K, 5]`` on one of ``features`` (``[N, C, Hl, Wl]`` each).

    Args:
        levels: ``[K]``, the place in ``features`` of each RoI; ``None``: by its area.
        valid: ``[B]``; of the K / B rows of each image only so many are boxes, the others give zeros.
    """
    place = assign_levels(rois.detach(), scales, canonical_scale, canonical_level, levels, valid)
    output = features[0].new_zeros(len(rois), features[0].shape[1], pooled_height, pooled_width)
    output[place == BAD_LEVEL] = math.nan
    for level, (map_, scale) in enumerate(zip(features, scales, strict=True)):
        here = (place == level).nonzero()[:, 0]
        if map_.numel() == 0:
            continue  # nothing to pool: zeros
        crops = roi_align(map_, rois[here], scale, pooled_height, pooled_width, sampling_ratio, aligned)
        output = output.index_copy(0, here, crops)
    return output


def multiscale_roi_align_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    scales: Sequence[float],
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    sizes: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Gradients of :func:`multiscale_roi_align` with respect to its features.

    Args:
        sizes: height and width of the first map, of the second, and so on.
    """
    place = assign_levels(rois, scales, canonical_scale, canonical_level, levels, valid)
    grads = []
    for level, scale in enumerate(scales):
        here = place == level
        size = (batch_size, channels, sizes[2 * level], sizes[2 * level + 1])
        pooled = (pooled_height, pooled_width)
        grads.append(single_level_backward(grad[here], rois[here], scale, *pooled, *size, sampling_ratio, aligned))
    return grads
