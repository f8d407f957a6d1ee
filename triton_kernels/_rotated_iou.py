"""Rotated boxes as tables, and the intersection over union of tiles of them.

By the operations of ``csrc/box_iou_rotated/rotated_box.h`` and ``rotated_iou.h``, in the same order, in float64, so
that every backend gives the same bits; :mod:`structops.reference.box_iou_rotated` has the derivation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch
from structops.triton_kernels._rotation import _rotation

# A fused multiply-add would round differently from the definition.
EXACT = {"enable_fp_fusion": False}


@triton.jit(do_not_specialize=["n"])
def rotated_boxes_kernel(
    boxes,  # [N, 5] (centre x, centre y, width, height, degrees)
    turns,  # [N] float64: degrees, less whole turns
    order,  # [N] int64: which box comes where; None: as they are
    table,  # [7, N] float64, written: centre x, y, cosine, sine, half the width, half the height, area
    bounds,  # [4, N] float32, written: x1, y1, x2, y2 of a rectangle around each box
    box_stride,
    column_stride,
    n,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    source = i.to(tl.int64)
    if order is not None:
        source = tl.load(order + i, mask=mask, other=0)
    row = boxes + source * box_stride
    x = tl.load(row, mask=mask, other=0.0).to(tl.float64)
    y = tl.load(row + column_stride, mask=mask, other=0.0).to(tl.float64)
    width = tl.load(row + 2 * column_stride, mask=mask, other=0.0).to(tl.float64)
    height = tl.load(row + 3 * column_stride, mask=mask, other=0.0).to(tl.float64)
    turn = tl.load(turns + source, mask=mask, other=0.0)
    limit = 1.6069380442589903e60  # 2^200
    smallest = 6.223015277861142e-61
    finite = (tl.abs(x) <= limit) & (tl.abs(y) <= limit) & (tl.abs(width) <= limit) & (tl.abs(height) <= limit)
    finite = finite & (turn - turn == 0.0)
    solid = finite & (width > smallest) & (height > smallest)
    cos, sin = _rotation(tl.where(finite, turn, 0.0))
    x = tl.where(finite, x, 0.0)
    y = tl.where(finite, y, 0.0)
    half_width = tl.where(solid, width, 0.0) * 0.5
    half_height = tl.where(solid, height, 0.0) * 0.5
    area = tl.where(solid, width * height, tl.where(finite, 0.0, float("nan")))
    stride = tl.cast(n, tl.int64)
    tl.store(table + i, x, mask=mask)
    tl.store(table + stride + i, y, mask=mask)
    tl.store(table + 2 * stride + i, cos, mask=mask)
    tl.store(table + 3 * stride + i, sin, mask=mask)
    tl.store(table + 4 * stride + i, half_width, mask=mask)
    tl.store(table + 5 * stride + i, half_height, mask=mask)
    tl.store(table + 6 * stride + i, area, mask=mask)

    # Boxes whose bounds are apart have an IoU of exactly 0; see rotated_bounds in rotated_box.h for the margin.
    half_x = half_width * tl.abs(cos) + half_height * tl.abs(sin)
    half_y = half_width * tl.abs(sin) + half_height * tl.abs(cos)
    margin = (half_x + half_y) * 1e-6 + 1e-37
    reach_x = half_x + margin + (tl.abs(x) + half_x) * 5e-7
    reach_y = half_y + margin + (tl.abs(y) + half_y) * 5e-7
    infinity = float("inf")
    tl.store(bounds + i, tl.where(finite, x - reach_x, -infinity).to(tl.float32), mask=mask)
    tl.store(bounds + stride + i, tl.where(finite, y - reach_y, -infinity).to(tl.float32), mask=mask)
    tl.store(bounds + 2 * stride + i, tl.where(finite, x + reach_x, infinity).to(tl.float32), mask=mask)
    tl.store(bounds + 3 * stride + i, tl.where(finite, y + reach_y, infinity).to(tl.float32), mask=mask)


@triton.jit
def _bounds(bounds, n, i, mask):
    """Columns of the table of bounds; out of the mask: what meets nothing."""
    stride = tl.cast(n, tl.int64)
    nothing = float("nan")
    x1 = tl.load(bounds + i, mask=mask, other=nothing)
    y1 = tl.load(bounds + stride + i, mask=mask, other=nothing)
    x2 = tl.load(bounds + 2 * stride + i, mask=mask, other=nothing)
    y2 = tl.load(bounds + 3 * stride + i, mask=mask, other=nothing)
    return x1, y1, x2, y2


@triton.jit
def _meet(a_bounds, a_n, i, a_mask, b_bounds, b_n, j, b_mask):
    """Of rows i and columns j, whether their bounds meet."""
    ax1, ay1, ax2, ay2 = _bounds(a_bounds, a_n, i, a_mask)
    bx1, by1, bx2, by2 = _bounds(b_bounds, b_n, j, b_mask)
    across = (ax1[:, None] <= bx2[None, :]) & (bx1[None, :] <= ax2[:, None])
    return across & (ay1[:, None] <= by2[None, :]) & (by1[None, :] <= ay2[:, None])


@triton.jit
def _box(table, n, i, mask):
    """Columns of the table of boxes; out of the mask: boxes without area."""
    stride = tl.cast(n, tl.int64)
    x = tl.load(table + i, mask=mask, other=0.0)
    y = tl.load(table + stride + i, mask=mask, other=0.0)
    cos = tl.load(table + 2 * stride + i, mask=mask, other=1.0)
    sin = tl.load(table + 3 * stride + i, mask=mask, other=0.0)
    half_width = tl.load(table + 4 * stride + i, mask=mask, other=0.0)
    half_height = tl.load(table + 5 * stride + i, mask=mask, other=0.0)
    area = tl.load(table + 6 * stride + i, mask=mask, other=0.0)
    return x, y, cos, sin, half_width, half_height, area


@triton.jit
def _between(v, low, high):
    raised = tl.where(v < low, low, v)
    return tl.where(raised > high, high, raised)


@triton.jit
def _under(x0, y0, x1, y1, slope, inverse, left, right, top, bottom, base):
    """The integral of y - base along an edge, x and y kept in the window."""
    start_x = _between(x0, left, right)
    end_x = _between(x1, left, right)
    start_y = y0 + (start_x - x0) * slope
    end_y = y1 + (end_x - x1) * slope
    first_y = _between(start_y, top, bottom)
    last_y = _between(end_y, top, bottom)
    low = tl.where(start_x < end_x, start_x, end_x)
    high = tl.where(start_x < end_x, end_x, start_x)
    enter = _between(start_x + (first_y - start_y) * inverse, low, high)
    leave = _between(end_x + (last_y - end_y) * inverse, low, high)
    first = first_y - base
    last = last_y - base
    return first * (enter - start_x) + (first + last) * 0.5 * (leave - enter) + last * (end_x - leave)


@triton.jit
def _iou(ax, ay, acos, asin, aw, ah, aarea, bx, by, bcos, bsin, bw, bh, barea):
    """Of boxes whose shapes broadcast; aw, ah, bw, bh are half their sides."""
    dx = bx - ax
    dy = by - ay
    at_x = dx * acos - dy * asin
    at_y = dx * asin + dy * acos
    c = acos * bcos + asin * bsin
    s = asin * bcos - acos * bsin
    straight = tl.abs(s) < 1e-18
    crossed = tl.abs(c) < 1e-18
    c = tl.where(straight, 1.0, tl.where(crossed, 0.0, c))
    s = tl.where(crossed, 1.0, tl.where(straight, 0.0, s))
    p = tl.where(crossed, 0.0, s / tl.where(crossed, 1.0, c))
    q = tl.where(straight, 0.0, c / tl.where(straight, 1.0, s))

    left = -aw - at_x
    right = aw - at_x
    top = -ah - at_y
    bottom = ah - at_y
    base = _between(tl.zeros_like(top), top, bottom)
    ux = bw * c
    uy = bw * s
    vx = -bh * s
    vy = bh * c
    ex = ux + vx
    ey = uy + vy
    fx = ux - vx
    fy = uy - vy
    along = _under(-ex, -ey, fx, fy, p, q, left, right, top, bottom, base)
    along = along + _under(ex, ey, -fx, -fy, p, q, left, right, top, bottom, base)
    across = _under(fx, fy, ex, ey, -q, -p, left, right, top, bottom, base)
    across = across + _under(-fx, -fy, -ex, -ey, -q, -p, left, right, top, bottom, base)
    smaller = tl.where(aarea < barea, aarea, barea)
    overlap = _between(0.0 - (along + across), tl.zeros_like(top), smaller)
    turned_x = at_x * c + at_y * s
    turned_y = at_y * c - at_x * s
    c = tl.abs(c)
    s = tl.abs(s)
    apart = (tl.abs(turned_x) >= bw + (aw * c + ah * s)) | (tl.abs(turned_y) >= bh + (aw * s + ah * c))
    overlap = tl.where(apart, 0.0, overlap)
    union = aarea + barea - overlap
    return overlap / tl.where(union == 0.0, 1.0, union)


@triton.jit
def _iou_tile(a_table, a_n, i, a_mask, b_table, b_n, j, b_mask):
    """IoU of rows i with columns j, float64."""
    ax, ay, acos, asin, aw, ah, aarea = _box(a_table, a_n, i, a_mask)
    bx, by, bcos, bsin, bw, bh, barea = _box(b_table, b_n, j, b_mask)
    return _iou(
        ax[:, None],
        ay[:, None],
        acos[:, None],
        asin[:, None],
        aw[:, None],
        ah[:, None],
        aarea[:, None],
        bx[None, :],
        by[None, :],
        bcos[None, :],
        bsin[None, :],
        bw[None, :],
        bh[None, :],
        barea[None, :],
    )


@dataclass(frozen=True)
class RotatedBoxes:
    """The tables of one set of boxes; see :func:`rotated_boxes_kernel`. Running ``launch`` fills them."""

    table: torch.Tensor
    bounds: torch.Tensor
    launch: Launch


def rotated_boxes(boxes: torch.Tensor, order: torch.Tensor | None = None) -> RotatedBoxes:
    """Tables for ``boxes [N, 5]``, in the order told."""
    n, device = boxes.shape[0], boxes.device
    table = torch.empty((7, n), dtype=torch.float64, device=device)
    bounds = torch.empty((4, n), dtype=torch.float32, device=device)
    arguments = {
        "boxes": boxes,
        "turns": torch.fmod(boxes[:, 4].double(), 360.0),
        "order": order,
        "table": table,
        "bounds": bounds,
        "box_stride": boxes.stride(0),
        "column_stride": boxes.stride(1),
        "n": n,
        "BLOCK": 128,
    }
    return RotatedBoxes(
        table, bounds, Launch(rotated_boxes_kernel, (triton.cdiv(n, 128),), arguments, {"num_warps": 4, **EXACT})
    )
