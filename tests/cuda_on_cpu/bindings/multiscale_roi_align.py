"""RoI Align over a pyramid by the CUDA kernels: what its binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import math

import torch

from structops._layout import memory_format
from structops.reference.multiscale_roi_align import level_thresholds
from structops.testing import Case
from structops.testing.cases._draw import boxes, features

from ..emulator import Emulator, poisoned

LEVELS = 8


def _wide_maps(g):
    """Adaptive sampling across maps too wide for the tables, on both of two levels; and one box that is on none."""
    across = torch.cat([torch.zeros(3, 1), boxes(g, 3, 12500, 2, smallest=11000, largest=12500)], 1)
    maps = [features(g, 1, 2, 2, 12500), features(g, 1, 2, 1, 6250)]
    options = {"scales": (1.0, 0.5), "sampling_ratio": -1, "aligned": True, "levels": torch.tensor([0, 1, 0])}
    return {"features": maps, "boxes": across, "output_size": (1, 2), **options}


EXTRA = {"multiscale_roi_align": (Case("taps-beyond-shared-memory", _wide_maps),)}


def _shared(rois, scales, canonical_scale, canonical_level, levels, valid):
    """Launcher arguments that forward and backward have in common: parameters, the choice of levels, rois."""
    rois = rois.contiguous() if rois.dtype == torch.float64 else rois.float().contiguous()
    thresholds = [math.nan] * LEVELS
    if levels is None:
        found = level_thresholds(scales, canonical_scale, canonical_level)
        thresholds[: len(found)] = found
    levels, valid = (None if t is None else t.long().contiguous() for t in (levels, valid))
    rows = 1 if valid is None or not len(rois) else len(rois) // len(valid)
    choice = (*thresholds, len(scales), levels, valid, rows)
    return rois, choice, torch.tensor(scales, dtype=torch.float64)


def multiscale_roi_align(
    emulator: Emulator,
    features: list[torch.Tensor],
    rois: torch.Tensor,
    scales: list[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> torch.Tensor:
    layout = memory_format(features[0])
    channels_last = layout == torch.channels_last
    batch, channels = features[0].shape[:2]
    output = poisoned(len(rois), channels, pooled_height, pooled_width, like=features[0], memory_format=layout)
    if output.numel() == 0:
        return output
    maps = [f.contiguous(memory_format=layout) if channels_last else f for f in features]
    rois, choice, scales_ = _shared(rois, scales, canonical_scale, canonical_level, levels, valid)
    geometry = torch.tensor([[*f.shape[2:], *f.stride()] for f in maps])
    pointers = [f if f.numel() else None for f in maps] + [None] * (LEVELS - len(maps))
    parameters = len(rois), batch, channels, 0, 0, pooled_height, pooled_width, 0.0, sampling_ratio, aligned
    name = f"multiscale_roi_align_forward_{str(output.dtype).removeprefix('torch.')}"
    is_double = rois.dtype == torch.float64
    emulator.launch(name, *parameters, *choice, *pointers, geometry, scales_, rois, is_double, output, channels_last)
    return output


def multiscale_roi_align_backward(
    emulator: Emulator,
    grad: torch.Tensor,
    rois: torch.Tensor,
    scales: list[float],
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    sizes: list[int],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> list[torch.Tensor]:
    layout = memory_format(grad)
    shapes = [(batch_size, channels, *size) for size in zip(sizes[::2], sizes[1::2], strict=True)]
    grads = [poisoned(*shape, like=grad, memory_format=layout) for shape in shapes]
    if grad.numel() == 0:
        return [g.zero_() for g in grads]
    rois, choice, scales_ = _shared(rois, scales, canonical_scale, canonical_level, levels, valid)
    is_double = rois.dtype == torch.float64

    def parameters(height: int, width: int, scale: float):
        bins = (pooled_height, pooled_width)
        return len(rois), batch_size, channels, height, width, *bins, scale, sampling_ratio, aligned

    workspace = poisoned(
        emulator.launch("roi_align_backward_workspace", *parameters(0, 0, 0.0)), like=grad, dtype=torch.uint8
    )
    emulator.launch(
        "multiscale_roi_align_bounds",
        *parameters(0, 0, 0.0),
        *choice,
        torch.tensor(sizes),
        scales_,
        rois,
        is_double,
        workspace,
    )
    name = f"roi_align_gather_{str(grad.dtype).removeprefix('torch.')}"
    strides = torch.tensor(grad.stride())
    for level, (g, scale) in enumerate(zip(grads, scales, strict=True)):
        if g.numel():
            here = (*parameters(*g.shape[2:], scale), grad, strides, rois, is_double, g, layout == torch.channels_last)
            emulator.launch(name, *here, workspace, level * batch_size)
    return grads
