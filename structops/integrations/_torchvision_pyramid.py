"""What torchvision's MultiScaleRoIAlign does: Python code above its RoI Align, level by level."""

from __future__ import annotations

import math

import torch
from torchvision.ops import poolers

from structops import ops
from structops._checks import FLOATING
from structops.integrations._torchvision_devices import patched
from structops.ops._boxes import MAX_POOLED

_torchvision_multiscale_roi_align = poolers._multiscale_roi_align  # captured before the first patch


def _multiscale_roi_align(
    x_filtered: list[torch.Tensor],
    boxes: list[torch.Tensor],
    output_size: list[int],
    sampling_ratio: int,
    scales: list[float] | None,
    mapper: poolers.LevelMapper | None,
) -> torch.Tensor:
    """What :class:`torchvision.ops.MultiScaleRoIAlign` calls, in one launch for all levels and images.

    Args:
        x_filtered: one map ``[N, C, Hl, Wl]`` per level.
        boxes: one tensor ``[L, 4]`` (x1, y1, x2, y2) per image.
        output_size: of the crop.
        sampling_ratio: samples along each axis of a bin.
        scales: feature pixels per image pixel of each map.
        mapper: torchvision's rule for a box's level.

    Returns:
        ``[K, C, height, width]``.
    """
    if torch.jit.is_scripting():
        return _torchvision_multiscale_roi_align(x_filtered, boxes, output_size, sampling_ratio, scales, mapper)
    else:
        if (
            torch.jit.is_tracing()
            or scales is None
            or mapper is None
            or not _poolable_by_level(x_filtered, boxes, output_size, scales, mapper)
        ):
            return _torchvision_multiscale_roi_align(x_filtered, boxes, output_size, sampling_ratio, scales, mapper)
        options = (sampling_ratio, False, mapper.s0, mapper.lvl0)
        return ops.multiscale_roi_align(x_filtered, boxes, output_size, scales, *options).contiguous()


def _poolable_by_level(features, boxes, output_size, scales, mapper) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    if type(mapper) is not poolers.LevelMapper or not 1 < len(features) <= 8:
        return False
    first = features[0]
    # torchvision's own levels, that is, of scales that are powers of two, one after the other
    levels = [round(-math.log2(scale)) if scale > 0 else None for scale in scales]
    return (
        patched(first.device)
        and first.dtype in FLOATING
        and len(scales) == len(features)
        and [2.0**-k for k in levels if k is not None] == list(scales)
        and levels == list(range(mapper.k_min, mapper.k_max + 1))
        and mapper.eps == 1e-6
        and mapper.s0 > 0
        and all(0 < n <= MAX_POOLED for n in output_size)
        and all(f.dim() == 4 and f.dtype == first.dtype and f.device == first.device for f in features)
        and len({f.shape[:2] for f in features}) == 1
        and len(boxes) > 0
        and all(
            b.dim() == 2
            and b.shape[1] == 4
            and b.device == first.device
            # Autocast makes both float32 before torchvision compares their types.
            and (b.dtype == first.dtype or (b.dtype in FLOATING and torch.is_autocast_enabled(first.device.type)))
            for b in boxes
        )
    )


FUNCTIONS = ((_torchvision_multiscale_roi_align, _multiscale_roi_align),)
