"""Keypoints of heatmaps: a program for each map, which goes over the pixels of the resized one, none of it stored."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run

from structops.reference.heatmaps_to_keypoints import MAX_RESIZED

_BLOCK = 512


@triton.jit
def _near_weight(x):
    one = tl.full(x.shape, 1.0, x.dtype)
    return tl.fma(x, one * 1.25, one * -2.25) * x * x + 1.0


@triton.jit
def _far_weight(x):
    one = tl.full(x.shape, 1.0, x.dtype)
    return tl.fma(tl.fma(x, one * -0.75, one * 3.75), x, one * -6.0) * x + 3.0


@triton.jit
def _cubic_sum(v0, v1, v2, v3, w0, w1, w2, w3):
    return tl.fma(v3, w3, tl.fma(v2, w2, tl.fma(v0, w0, v1 * w1)))


@triton.jit
def _taps(at, scale, extent, dtype: tl.constexpr):
    """The pixel at or below each place of an axis, and the weights of the four around; torch's arithmetic."""
    half = tl.full(at.shape, 0.5, dtype)
    source = tl.fma(at.to(dtype) + half, half * 0.0 + scale, -half)
    low = tl.minimum(tl.floor(source).to(tl.int32), extent - 1)
    t = tl.minimum(tl.maximum(source - low.to(dtype), 0.0), 1.0)
    rest = 1.0 - t
    return low, _far_weight(t + 1.0), _near_weight(t), _near_weight(rest), _far_weight(rest + 1.0)


@triton.jit
def _line(row, low, width, w0, w1, w2, w3, exists, dtype: tl.constexpr):
    """Four pixels of a row each, edges repeated."""
    v0 = tl.load(row + tl.maximum(low - 1, 0), mask=exists, other=0.0).to(dtype)
    v1 = tl.load(row + tl.maximum(low, 0), mask=exists, other=0.0).to(dtype)
    v2 = tl.load(row + tl.minimum(low + 1, width - 1), mask=exists, other=0.0).to(dtype)
    v3 = tl.load(row + tl.minimum(low + 2, width - 1), mask=exists, other=0.0).to(dtype)
    return _cubic_sum(v0, v1, v2, v3, w0, w1, w2, w3)


@triton.jit
def _quotient(a, b, dtype: tl.constexpr):
    # The plain operator on float32 is a faster, inexact division.
    return tl.div_rn(a, b) if dtype == tl.float32 else a / b


@triton.jit(do_not_specialize=["points", "height", "width"])
def heatmaps_to_keypoints_kernel(
    maps,  # [K, P, H, W]
    rois,  # [K, 4] (x1, y1, x2, y2)
    keypoints,  # [K, P, 3], written
    scores,  # [K, P], written
    points,
    height,
    width,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = scores.dtype.element_ty
    point = tl.program_id(0).to(tl.int64)
    box = rois + point // points * 4
    left, top = tl.load(box), tl.load(box + 1)
    box_width, box_height = tl.load(box + 2) - left, tl.load(box + 3) - top
    box_width = tl.where(box_width < 1.0, left * 0.0 + 1.0, box_width)  # NaN stays
    box_height = tl.where(box_height < 1.0, left * 0.0 + 1.0, box_height)
    nothing = (left - left) + (top - top) + (box_width - box_width) + (box_height - box_height)  # 0, or NaN
    finite = nothing == 0.0
    limit = tl.cast(LIMIT, dtype)
    across = tl.where(finite & (box_width < limit), tl.ceil(box_width), limit).to(tl.int32)
    down = tl.where(finite & (box_height < limit), tl.ceil(box_height), limit).to(tl.int32)
    x_scale = _quotient(width.to(dtype), across.to(dtype), dtype)
    y_scale = _quotient(height.to(dtype), down.to(dtype), dtype)
    map_ = maps + point * height * width

    lane = tl.arange(0, BLOCK)
    value = tl.full([BLOCK], float("-inf"), dtype)
    place = tl.full([BLOCK], 2147483647, tl.int32)
    total = tl.where(finite, across * down, 0)
    for first in range(0, total, BLOCK):
        at = first + lane
        exists = at < total
        low_x, wx0, wx1, wx2, wx3 = _taps(at % across, x_scale, width, dtype)
        low_y, wy0, wy1, wy2, wy3 = _taps(at // across, y_scale, height, dtype)
        row0 = map_ + tl.maximum(low_y - 1, 0) * width
        row1 = map_ + tl.maximum(low_y, 0) * width
        row2 = map_ + tl.minimum(low_y + 1, height - 1) * width
        row3 = map_ + tl.minimum(low_y + 2, height - 1) * width
        line0 = _line(row0, low_x, width, wx0, wx1, wx2, wx3, exists, dtype)
        line1 = _line(row1, low_x, width, wx0, wx1, wx2, wx3, exists, dtype)
        line2 = _line(row2, low_x, width, wx0, wx1, wx2, wx3, exists, dtype)
        line3 = _line(row3, low_x, width, wx0, wx1, wx2, wx3, exists, dtype)
        found = _cubic_sum(line0, line1, line2, line3, wy0, wy1, wy2, wy3)
        # NaN is the largest. A lane meets its places in rising order, so that the first of equals stays.
        better = (found > value) | ((found != found) & (value == value)) | (place == 2147483647)
        value = tl.where(better & exists, found, value)
        place = tl.where(better & exists, at, place)
    no_number = (value != value).to(tl.int32)
    any_number = tl.max(no_number, 0) == 0
    most = tl.max(tl.where(no_number == 1, float("-inf"), value), 0)
    best = tl.min(tl.where(tl.where(any_number, value == most, no_number == 1), place, 2147483647), 0)
    score = tl.where(finite, tl.where(any_number, most, float("nan")), nothing)
    x = ((best % across).to(dtype) + 0.5) * _quotient(box_width, across.to(dtype), dtype)
    y = ((best // across).to(dtype) + 0.5) * _quotient(box_height, down.to(dtype), dtype)
    tl.store(keypoints + point * 3, tl.where(finite, x + left, nothing))
    tl.store(keypoints + point * 3 + 1, tl.where(finite, y + top, nothing))
    tl.store(keypoints + point * 3 + 2, tl.cast(1.0, dtype))
    tl.store(scores + point, score)


def _launch(maps: torch.Tensor, rois: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], Launch]:
    count, points, height, width = maps.shape
    keypoints = torch.empty((count, points, 3), dtype=rois.dtype, device=maps.device)
    scores = torch.empty((count, points), dtype=rois.dtype, device=maps.device)
    arguments = {
        "maps": maps,
        "rois": rois,
        "keypoints": keypoints,
        "scores": scores,
        "points": points,
        "height": height,
        "width": width,
        "LIMIT": MAX_RESIZED,
        "BLOCK": _BLOCK,
    }
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return (keypoints, scores), Launch(heatmaps_to_keypoints_kernel, (count * points,), arguments, options)


def heatmaps_to_keypoints(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints ``[K, P, 3]`` and scores ``[K, P]`` of ``maps [K, P, H, W]`` in ``rois [K, 4]``."""
    wide = torch.float64 in (maps.dtype, rois.dtype)
    compute = torch.float64 if wide else torch.float32
    found, launch = _launch(maps.to(compute if wide else maps.dtype).contiguous(), rois.to(compute).contiguous())
    run(maps.device, [launch])
    return found


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        maps = torch.empty((100, 17, 56, 56), dtype=dtype, device="meta")
        rois = torch.empty((100, 4), dtype=torch.promote_types(dtype, torch.float32), device="meta")
        yield str(dtype)[6:], _launch(maps, rois)[1]
