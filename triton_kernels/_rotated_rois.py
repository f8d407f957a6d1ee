"""What rotated boxes are, as tables that the kernels of :mod:`structops.triton_kernels.roi_align_rotated` read.

Sines, sizes and sample counts are computed once per RoI, by the same operations in the same order as
``csrc/roi_align_rotated/rotated_roi.h``, so that all backends take the same decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits
from structops.triton_kernels._rotation import _rotation

# Rows of the table of doubles.
ROWS = 8


@triton.jit(do_not_specialize=["scale_bits", "batch", "height", "width", "pooled_h", "pooled_w", "sampling_ratio"])
def rotated_rois_kernel(
    rois,  # [K, 6] (batch index, centre x, centre y, width, height, degrees)
    turns,  # [K] float64: degrees, less whole turns
    table,  # [ROWS, K] float64, written: centre x, y, cosine, sine, first edge and bin size along x, then y
    counts,  # [2, K] int32, written: samples of a bin along x, y
    image,  # [K] int32, written: the image of each RoI; -1: its output is NaN
    bounds,  # [4, K] int32, written: first and last pixel touched along x, y; none where the first is larger
    rois_count,
    roi_stride,
    column_stride,
    scale_bits,
    batch,
    height,
    width,
    pooled_h,
    pooled_w,
    sampling_ratio,
    ALIGNED: tl.constexpr,
    CLOCKWISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = k < rois_count
    scale = scale_bits.to(tl.int64).to(tl.float64, bitcast=True)
    offset = 0.5 if ALIGNED else 0.0
    row = rois + k * roi_stride
    picture = tl.load(row, mask=mask, other=-1.0).to(tl.float64)
    center_x = tl.load(row + column_stride, mask=mask, other=0.0).to(tl.float64) * scale - offset
    center_y = tl.load(row + 2 * column_stride, mask=mask, other=0.0).to(tl.float64) * scale - offset
    length_x = tl.load(row + 3 * column_stride, mask=mask, other=0.0).to(tl.float64) * scale
    length_y = tl.load(row + 4 * column_stride, mask=mask, other=0.0).to(tl.float64) * scale
    turn = tl.load(turns + k, mask=mask, other=0.0)
    finite = (center_x - center_x == 0.0) & (center_y - center_y == 0.0) & (turn - turn == 0.0)
    finite = finite & (length_x - length_x == 0.0) & (length_y - length_y == 0.0)
    valid = finite & (picture >= 0.0) & (picture < batch)
    turn = tl.where(valid, turn, 0.0)
    limit = 1073741824.0  # 2^30
    center_x = tl.minimum(tl.maximum(tl.where(valid, center_x, 0.0), -limit), limit)
    center_y = tl.minimum(tl.maximum(tl.where(valid, center_y, 0.0), -limit), limit)
    length_x = tl.minimum(tl.maximum(tl.where(valid, length_x, 0.0), -limit), limit)
    length_y = tl.minimum(tl.maximum(tl.where(valid, length_y, 0.0), -limit), limit)
    if not ALIGNED:
        length_x = tl.maximum(length_x, 1.0)
        length_y = tl.maximum(length_y, 1.0)

    cos, sin = _rotation(turn)
    if CLOCKWISE:
        sin = -sin

    bin_x = length_x / pooled_w.to(tl.float64)
    bin_y = length_y / pooled_h.to(tl.float64)
    samples_x = tl.where(sampling_ratio > 0, sampling_ratio, tl.maximum(tl.ceil(bin_x), 0.0).to(tl.int32))
    samples_y = tl.where(sampling_ratio > 0, sampling_ratio, tl.maximum(tl.ceil(bin_y), 0.0).to(tl.int32))
    start_x = length_x * -0.5
    start_y = length_y * -0.5

    # The box around the box, and a thousandth of a pixel for rounding.
    touches = valid & (samples_x > 0) & (samples_y > 0)
    half_x = tl.abs(start_y) * tl.abs(sin) + tl.abs(start_x) * tl.abs(cos) + 1e-3
    half_y = tl.abs(start_y) * tl.abs(cos) + tl.abs(start_x) * tl.abs(sin) + 1e-3
    touches = touches & (center_x + half_x >= -1.0) & (center_x - half_x <= width)
    touches = touches & (center_y + half_y >= -1.0) & (center_y - half_y <= height)
    last_x = (width - 1).to(tl.float64)
    last_y = (height - 1).to(tl.float64)
    x0 = tl.minimum(tl.maximum(tl.floor(center_x - half_x), 0.0), last_x).to(tl.int32)
    x1 = tl.minimum(tl.maximum(tl.floor(center_x + half_x) + 1.0, 0.0), last_x).to(tl.int32)
    y0 = tl.minimum(tl.maximum(tl.floor(center_y - half_y), 0.0), last_y).to(tl.int32)
    y1 = tl.minimum(tl.maximum(tl.floor(center_y + half_y) + 1.0, 0.0), last_y).to(tl.int32)

    tl.store(table + k, center_x, mask=mask)
    tl.store(table + rois_count + k, center_y, mask=mask)
    tl.store(table + 2 * rois_count + k, cos, mask=mask)
    tl.store(table + 3 * rois_count + k, sin, mask=mask)
    tl.store(table + 4 * rois_count + k, start_x, mask=mask)
    tl.store(table + 5 * rois_count + k, bin_x, mask=mask)
    tl.store(table + 6 * rois_count + k, start_y, mask=mask)
    tl.store(table + 7 * rois_count + k, bin_y, mask=mask)
    tl.store(counts + k, samples_x, mask=mask)
    tl.store(counts + rois_count + k, samples_y, mask=mask)
    tl.store(image + k, tl.where(valid, tl.where(valid, picture, 0.0).to(tl.int32), -1), mask=mask)
    tl.store(bounds + k, tl.where(touches, x0, 1), mask=mask)
    tl.store(bounds + rois_count + k, tl.where(touches, x1, 0), mask=mask)
    tl.store(bounds + 2 * rois_count + k, tl.where(touches, y0, 1), mask=mask)
    tl.store(bounds + 3 * rois_count + k, tl.where(touches, y1, 0), mask=mask)


@triton.jit
def _roi(table, counts, k, rois_count):
    """The rows of one RoI's column."""
    center_x = tl.load(table + k)
    center_y = tl.load(table + rois_count + k)
    cos = tl.load(table + 2 * rois_count + k)
    sin = tl.load(table + 3 * rois_count + k)
    start_x = tl.load(table + 4 * rois_count + k)
    bin_x = tl.load(table + 5 * rois_count + k)
    start_y = tl.load(table + 6 * rois_count + k)
    bin_y = tl.load(table + 7 * rois_count + k)
    samples_x = tl.load(counts + k)
    samples_y = tl.load(counts + rois_count + k)
    return center_x, center_y, cos, sin, start_x, bin_x, start_y, bin_y, samples_x, samples_y


@triton.jit
def _local(center_x, center_y, cos, sin, x0, x1, y0, y1):
    """The rectangle in the box's own coordinates around a window of the map: its ends along x and y."""
    mx = (x0 + x1) * 0.5 - center_x
    my = (y0 + y1) * 0.5 - center_y
    hx = (x1 - x0) * 0.5
    hy = (y1 - y0) * 0.5
    at_x = mx * cos - my * sin
    at_y = mx * sin + my * cos
    half_x = hx * tl.abs(cos) + hy * tl.abs(sin) + 1e-3
    half_y = hx * tl.abs(sin) + hy * tl.abs(cos) + 1e-3
    return at_x - half_x, at_x + half_x, at_y - half_y, at_y + half_y


@triton.jit
def _between(low, high, start, step, shift, n):
    """The integers i of [0, n) with ``start + (i + shift) * step`` in [low, high], and one more at each end."""
    safe = tl.where(step == 0.0, 1.0, step)
    a = (low - start) / safe - shift
    b = (high - start) / safe - shift
    most = n.to(tl.float64)
    first = tl.minimum(tl.maximum(tl.floor(tl.minimum(a, b)), 0.0), most)
    last = tl.minimum(tl.maximum(tl.ceil(tl.maximum(a, b)) + 1.0, 0.0), most)
    return tl.where(step == 0.0, 0.0, first).to(tl.int32), tl.where(step == 0.0, most, last).to(tl.int32)


@triton.jit
def _pixel(at, extent):
    """Pixel at or below a position, weight of the next one, and whether the position is inside."""
    inside = (at >= -1.0) & (at <= extent.to(tl.float64))
    at = tl.maximum(tl.where(inside, at, 0.0), 0.0)
    pixel = at.to(tl.int32)
    edge = pixel >= extent - 1
    pixel = tl.where(edge, extent - 1, pixel)
    return pixel, tl.where(edge, 0.0, at - pixel.to(tl.float64)), inside


@dataclass(frozen=True)
class RotatedRois:
    """The tables of one call; see :func:`rotated_rois_kernel` for what each holds. Running ``launch`` fills them."""

    table: torch.Tensor
    counts: torch.Tensor
    image: torch.Tensor
    bounds: torch.Tensor
    launch: Launch


def rotated_rois(
    rois: torch.Tensor,
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
    map_shape: tuple[int, int, int],
) -> RotatedRois:
    """Allocate the tables of ``rois [K, 6]`` on a map ``(N, H, W)``."""
    k, device, (batch, height, width) = rois.shape[0], rois.device, map_shape
    table = torch.empty((ROWS, k), dtype=torch.float64, device=device)
    counts, image, bounds = (torch.empty((n, k), dtype=torch.int32, device=device) for n in (2, 1, 4))
    block = min(128, triton.next_power_of_2(k))
    arguments = {
        "rois": rois,
        # Exact. The compiled remainder of two doubles is not: it multiplies the quotient back.
        "turns": torch.fmod(rois[:, 5].double(), 360.0),
        "table": table,
        "counts": counts,
        "image": image,
        "bounds": bounds,
        "rois_count": k,
        "roi_stride": rois.stride(0),
        "column_stride": rois.stride(1),
        "scale_bits": double_bits(spatial_scale),
        "batch": batch,
        "height": height,
        "width": width,
        "pooled_h": pooled[0],
        "pooled_w": pooled[1],
        "sampling_ratio": max(sampling_ratio, 0),
        "ALIGNED": aligned,
        "CLOCKWISE": clockwise,
        "BLOCK": block,
    }
    options = {"num_warps": max(1, block // 32), "enable_fp_fusion": False}
    launch = Launch(rotated_rois_kernel, (triton.cdiv(k, block),), arguments, options)
    return RotatedRois(table, counts, image, bounds, launch)
