"""Which level of a feature pyramid a RoI belongs to, for forward and backward alike.

As csrc/multiscale_roi_align/levels.h says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import double_bits

from structops.reference.multiscale_roi_align import level_thresholds

LEVELS = 8  # at most
_THRESHOLDS = [f"threshold{i}" for i in range(LEVELS)]
CHOICE = ["chosen_stride", "valid_stride", "levels", "rows", *_THRESHOLDS]


@triton.jit
def _double(bits):
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _pick(level, v0, v1, v2, v3, v4, v5, v6, v7):
    """The one of eight numbers that a level says."""
    v = tl.where(level == 1, v1.to(tl.int64), v0.to(tl.int64))
    v = tl.where(level == 2, v2.to(tl.int64), v)
    v = tl.where(level == 3, v3.to(tl.int64), v)
    v = tl.where(level == 4, v4.to(tl.int64), v)
    v = tl.where(level == 5, v5.to(tl.int64), v)
    v = tl.where(level == 6, v6.to(tl.int64), v)
    return tl.where(level == 7, v7.to(tl.int64), v)


@triton.jit
def _choose_level(
    k,
    rois,  # [K, 5]
    roi_stride,
    coordinate_stride,
    chosen,  # [K] integers, or None: by area
    valid,  # [K / rows] integers, or None
    chosen_stride,
    valid_stride,
    levels,
    rows,
    t0,
    t1,
    t2,
    t3,
    t4,
    t5,
    t6,
    t7,
):
    """The level of RoI k; -1: its output is zero, -2: NaN."""
    if chosen is not None:
        given = tl.load(chosen + k * chosen_stride).to(tl.int64)
        level = tl.where((given >= 0) & (given < levels), given, -2).to(tl.int32)
    else:
        roi = rois + k * roi_stride
        x1 = tl.load(roi + coordinate_stride).to(tl.float64)
        y1 = tl.load(roi + 2 * coordinate_stride).to(tl.float64)
        x2 = tl.load(roi + 3 * coordinate_stride).to(tl.float64)
        y2 = tl.load(roi + 4 * coordinate_stride).to(tl.float64)
        area = (x2 - x1) * (y2 - y1)
        level = (area >= _double(t0)).to(tl.int32) + (area >= _double(t1)).to(tl.int32)
        level += (area >= _double(t2)).to(tl.int32) + (area >= _double(t3)).to(tl.int32)
        level += (area >= _double(t4)).to(tl.int32) + (area >= _double(t5)).to(tl.int32)
        level += (area >= _double(t6)).to(tl.int32) + (area >= _double(t7)).to(tl.int32)
        level = tl.where(level < levels, level, -1)
    if valid is not None:
        count = tl.load(valid + (k // rows) * valid_stride).to(tl.int64)
        level = tl.where(k % rows >= count, -1, level)
    return level


def choice_arguments(
    rois: torch.Tensor,
    scales: Sequence[float],
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> dict[str, Any]:
    """What :func:`_choose_level` goes by, as arguments of a kernel."""
    thresholds = [math.nan] * LEVELS
    if levels is None:
        found = level_thresholds(scales, canonical_scale, canonical_level)
        thresholds[: len(found)] = found
    # An 8-bit integer is the one that a pointer does not say the sign of.
    levels, valid = (None if t is None else t.long() if t.dtype.itemsize == 1 else t for t in (levels, valid))
    return {
        "chosen": levels,
        "valid": valid,
        "roi_stride": rois.stride(0),
        "coordinate_stride": rois.stride(1),
        "chosen_stride": 1 if levels is None else levels.stride(0),
        "valid_stride": 1 if valid is None else valid.stride(0),
        "levels": len(scales),
        "rows": 1 if valid is None else rois.shape[0] // valid.shape[0],
        **dict(zip(_THRESHOLDS, map(double_bits, thresholds), strict=True)),
    }
