"""Intersection over union of boxes in its four forms, forward and backward.

The forward computes tiles of pairs. The backward does too, for both sets at once, and leaves each tile's sums in a
workspace, which a second launch adds in order: no atomics, so results are the same bit for bit from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._box_pair import _pair_gradient, _pair_value, _side, _store_gradient
from structops.triton_kernels._launch import Launch, double_bits, run

_COMPLETE = 3
_TILE_ROWS, _TILE_COLUMNS = 32, 128  # of the forward: 32 pairs a thread
_BACKWARD_ROWS, _BACKWARD_COLUMNS = 64, 64
_BLOCK = 128


def _step(dtype: torch.dtype, rows: int) -> int:
    """Rows of a tile at a time: as many as the registers hold, half of them for doubles."""
    return rows // 2 if dtype == torch.float64 else rows


@triton.jit
def _eps(bits, boxes):
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(boxes.dtype.element_ty)


@triton.jit(do_not_specialize=["rows", "columns", "row_tiles", "column_tiles", "eps_bits"])
def box_iou_kernel(
    boxes1,  # [B, N, 4]
    boxes2,  # [B, M, 4]
    angles1,  # [B, N]; None unless complete
    angles2,  # [B, M]; None unless complete
    out,  # [B, N, M], written
    rows,
    columns,
    row_tiles,
    column_tiles,
    eps_bits,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):
    tile = tl.program_id(0)
    batch = (tile // column_tiles // row_tiles).to(tl.int64)
    row = tile // column_tiles % row_tiles * ROWS
    column = tile % column_tiles * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = column < columns
    bx1, by1, bx2, by2, b_area, b_angle = _side(boxes2, angles2, batch * columns + column, inside, FORMAT)
    eps = _eps(eps_bits, boxes1)
    for first in range(row, tl.minimum(row + ROWS, rows), STEP):
        i = first + tl.arange(0, STEP)[:, None]
        ax1, ay1, ax2, ay2, a_area, a_angle = _side(boxes1, angles1, batch * rows + i, i < rows, FORMAT)
        value = _pair_value(ax1, ay1, ax2, ay2, a_area, a_angle, bx1, by1, bx2, by2, b_area, b_angle, eps, KIND)
        tl.store(out + (batch * rows + i) * columns + column, value, mask=(i < rows) & inside)


@triton.jit(do_not_specialize=["count", "eps_bits"])
def box_iou_rows_kernel(
    boxes1,  # [N, 4]
    boxes2,  # [N, 4]
    angles1,  # [N]; None unless complete
    angles2,  # [N]; None unless complete
    out,  # [N], written
    count,
    eps_bits,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    ax1, ay1, ax2, ay2, a_area, a_angle = _side(boxes1, angles1, i, mask, FORMAT)
    bx1, by1, bx2, by2, b_area, b_angle = _side(boxes2, angles2, i, mask, FORMAT)
    eps = _eps(eps_bits, boxes1)
    value = _pair_value(ax1, ay1, ax2, ay2, a_area, a_angle, bx1, by1, bx2, by2, b_area, b_angle, eps, KIND)
    tl.store(out + i, value, mask=mask)


@triton.jit
def _store_sums(partial, at, count, mask, x1, y1, x2, y2, area, angle, KIND: tl.constexpr):
    """Six sums a box, field by field: ``count`` boxes a field."""
    tl.store(partial + at, x1, mask=mask)
    tl.store(partial + at + count, y1, mask=mask)
    tl.store(partial + at + 2 * count, x2, mask=mask)
    tl.store(partial + at + 3 * count, y2, mask=mask)
    tl.store(partial + at + 4 * count, area, mask=mask)
    if KIND == 3:
        tl.store(partial + at + 5 * count, angle, mask=mask)


@triton.jit(do_not_specialize=["batches", "rows", "columns", "row_tiles", "column_tiles", "eps_bits"])
def box_iou_backward_kernel(
    grad,  # [B, N, M]
    boxes1,  # [B, N, 4]
    boxes2,  # [B, M, 4]
    angles1,  # [B, N]; None unless complete
    angles2,  # [B, M]; None unless complete
    partial1,  # [column tiles, 6, B * N], written
    partial2,  # [row tiles, 6, B * M], written
    batches,
    rows,
    columns,
    row_tiles,
    column_tiles,
    eps_bits,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):
    tile = tl.program_id(0)
    batch = (tile // column_tiles // row_tiles).to(tl.int64)
    row_tile = tile // column_tiles % row_tiles
    column_tile = tile % column_tiles
    j = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    column = j[None, :]
    inside = column < columns
    bx1, by1, bx2, by2, b_area, b_angle = _side(boxes2, angles2, batch * columns + column, inside, FORMAT)
    eps = _eps(eps_bits, boxes1)
    sum_x1 = tl.zeros([COLUMNS], grad.dtype.element_ty)
    sum_y1 = tl.zeros([COLUMNS], grad.dtype.element_ty)
    sum_x2 = tl.zeros([COLUMNS], grad.dtype.element_ty)
    sum_y2 = tl.zeros([COLUMNS], grad.dtype.element_ty)
    sum_area = tl.zeros([COLUMNS], grad.dtype.element_ty)
    sum_angle = tl.zeros([COLUMNS], grad.dtype.element_ty)
    count1 = batches.to(tl.int64) * rows
    count2 = batches.to(tl.int64) * columns
    for first in range(row_tile * ROWS, tl.minimum(row_tile * ROWS + ROWS, rows), STEP):
        r = first + tl.arange(0, STEP)
        i = r[:, None]
        ax1, ay1, ax2, ay2, a_area, a_angle = _side(boxes1, angles1, batch * rows + i, i < rows, FORMAT)
        some = (i < rows) & inside
        g = tl.load(grad + (batch * rows + i) * columns + column, mask=some, other=0.0)
        to_ax1, to_ay1, to_ax2, to_ay2, to_a, to_a_angle, to_bx1, to_by1, to_bx2, to_by2, to_b, to_b_angle = (
            _pair_gradient(ax1, ay1, ax2, ay2, a_area, a_angle, bx1, by1, bx2, by2, b_area, b_angle, g, eps, KIND)
        )
        # Beyond the edge boxes are zero, and their gradients NaN.
        sum_x1 += tl.sum(tl.where(some, to_bx1, 0), axis=0)
        sum_y1 += tl.sum(tl.where(some, to_by1, 0), axis=0)
        sum_x2 += tl.sum(tl.where(some, to_bx2, 0), axis=0)
        sum_y2 += tl.sum(tl.where(some, to_by2, 0), axis=0)
        sum_area += tl.sum(tl.where(some, to_b, 0), axis=0)
        if KIND == 3:
            sum_angle += tl.sum(tl.where(some, to_b_angle, 0), axis=0)
        _store_sums(
            partial1,
            column_tile.to(tl.int64) * 6 * count1 + batch * rows + r,
            count1,
            r < rows,
            tl.sum(tl.where(some, to_ax1, 0), axis=1),
            tl.sum(tl.where(some, to_ay1, 0), axis=1),
            tl.sum(tl.where(some, to_ax2, 0), axis=1),
            tl.sum(tl.where(some, to_ay2, 0), axis=1),
            tl.sum(tl.where(some, to_a, 0), axis=1),
            tl.sum(tl.where(some, to_a_angle, 0), axis=1),
            KIND,
        )
    at = row_tile.to(tl.int64) * 6 * count2 + batch * columns + j
    _store_sums(partial2, at, count2, j < columns, sum_x1, sum_y1, sum_x2, sum_y2, sum_area, sum_angle, KIND)


@triton.jit(do_not_specialize=["count", "tiles"])
def box_iou_finish_kernel(
    boxes,  # [count, 4]
    partial,  # [tiles, 6, count]
    grad,  # [count, 4], written
    count,
    tiles,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    x1 = tl.zeros([BLOCK], boxes.dtype.element_ty)
    y1 = tl.zeros([BLOCK], boxes.dtype.element_ty)
    x2 = tl.zeros([BLOCK], boxes.dtype.element_ty)
    y2 = tl.zeros([BLOCK], boxes.dtype.element_ty)
    area = tl.zeros([BLOCK], boxes.dtype.element_ty)
    angle = tl.zeros([BLOCK], boxes.dtype.element_ty)
    stride = tl.cast(count, tl.int64)
    for tile in range(0, tiles):
        at = partial + tile * (6 * stride) + i
        x1 += tl.load(at, mask=mask, other=0.0)
        y1 += tl.load(at + stride, mask=mask, other=0.0)
        x2 += tl.load(at + 2 * stride, mask=mask, other=0.0)
        y2 += tl.load(at + 3 * stride, mask=mask, other=0.0)
        area += tl.load(at + 4 * stride, mask=mask, other=0.0)
        if KIND == 3:
            angle += tl.load(at + 5 * stride, mask=mask, other=0.0)
    _store_gradient(boxes, grad, i, mask, x1, y1, x2, y2, area, angle, KIND, FORMAT)


@triton.jit(do_not_specialize=["count", "eps_bits"])
def box_iou_rows_backward_kernel(
    grad,  # [N]
    boxes1,  # [N, 4]
    boxes2,  # [N, 4]
    angles1,  # [N]; None unless complete
    angles2,  # [N]; None unless complete
    grad1,  # [N, 4], written
    grad2,  # [N, 4], written
    count,
    eps_bits,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    ax1, ay1, ax2, ay2, a_area, a_angle = _side(boxes1, angles1, i, mask, FORMAT)
    bx1, by1, bx2, by2, b_area, b_angle = _side(boxes2, angles2, i, mask, FORMAT)
    g = tl.load(grad + i, mask=mask, other=0.0)
    to_ax1, to_ay1, to_ax2, to_ay2, to_a, to_a_angle, to_bx1, to_by1, to_bx2, to_by2, to_b, to_b_angle = _pair_gradient(
        ax1,
        ay1,
        ax2,
        ay2,
        a_area,
        a_angle,
        bx1,
        by1,
        bx2,
        by2,
        b_area,
        b_angle,
        g,
        _eps(eps_bits, boxes1),
        KIND,
    )
    _store_gradient(boxes1, grad1, i, mask, to_ax1, to_ay1, to_ax2, to_ay2, to_a, to_a_angle, KIND, FORMAT)
    _store_gradient(boxes2, grad2, i, mask, to_bx1, to_by1, to_bx2, to_by2, to_b, to_b_angle, KIND, FORMAT)


def _sets(boxes1: torch.Tensor, boxes2: torch.Tensor, kind: int) -> dict[str, torch.Tensor | None]:
    """Dense boxes of one type, and for the complete form their angles (torch's own arc tangent)."""
    dtype = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    boxes = [b.to(dtype).contiguous() for b in (boxes1, boxes2)]
    angles = [None, None]
    if kind == _COMPLETE:
        angles = [((b[..., 2] - b[..., 0]) / (b[..., 3] - b[..., 1])).atan() for b in boxes]
    return dict(zip(("boxes1", "boxes2", "angles1", "angles2"), (*boxes, *angles), strict=True))


# No fused multiply-adds: every operation rounds once.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


def _forward(boxes1, boxes2, kind, fmt, elementwise, eps) -> tuple[torch.Tensor, list[Launch]]:
    sets = _sets(boxes1, boxes2, kind)
    shared = {**sets, "eps_bits": double_bits(eps), "KIND": kind, "FORMAT": fmt}
    if elementwise:
        out = sets["boxes1"].new_empty(boxes1.shape[0])
        arguments = {**shared, "out": out, "count": out.numel(), "BLOCK": _BLOCK}
        return out, [Launch(box_iou_rows_kernel, (triton.cdiv(out.numel(), _BLOCK),), arguments, _OPTIONS)]
    batch, rows, columns = boxes1.shape[0], boxes1.shape[1], boxes2.shape[1]
    out = sets["boxes1"].new_empty(batch, rows, columns)
    width = min(_TILE_COLUMNS, triton.next_power_of_2(max(columns, 16)))
    row_tiles, column_tiles = triton.cdiv(rows, _TILE_ROWS), triton.cdiv(columns, width)
    arguments = {
        **shared,
        "out": out,
        "rows": rows,
        "columns": columns,
        "row_tiles": row_tiles,
        "column_tiles": column_tiles,
        "ROWS": _TILE_ROWS,
        "COLUMNS": width,
        "STEP": _step(out.dtype, 8),
    }
    return out, [Launch(box_iou_kernel, (batch * row_tiles * column_tiles,), arguments, _OPTIONS)]


def _backward(
    grad, boxes1, boxes2, kind, fmt, elementwise, eps
) -> tuple[tuple[torch.Tensor, torch.Tensor], list[Launch]]:
    sets, grad = _sets(boxes1, boxes2, kind), grad.contiguous()
    grad1, grad2 = (torch.empty_like(sets[name]) for name in ("boxes1", "boxes2"))
    constants = {"KIND": kind, "FORMAT": fmt}
    shared = {**sets, **constants, "grad": grad, "eps_bits": double_bits(eps)}
    if elementwise:
        count = boxes1.shape[0]
        arguments = {**shared, "grad1": grad1, "grad2": grad2, "count": count, "BLOCK": _BLOCK}
        grid = (triton.cdiv(count, _BLOCK),)
        return (grad1, grad2), [Launch(box_iou_rows_backward_kernel, grid, arguments, _OPTIONS)]
    batch, rows, columns = boxes1.shape[0], boxes1.shape[1], boxes2.shape[1]
    row_tiles, column_tiles = triton.cdiv(rows, _BACKWARD_ROWS), triton.cdiv(columns, _BACKWARD_COLUMNS)
    partial1 = grad.new_empty(column_tiles, 6, batch * rows)
    partial2 = grad.new_empty(row_tiles, 6, batch * columns)
    tiles = {
        **shared,
        "partial1": partial1,
        "partial2": partial2,
        "batches": batch,
        "rows": rows,
        "columns": columns,
        "row_tiles": row_tiles,
        "column_tiles": column_tiles,
        "ROWS": _BACKWARD_ROWS,
        "COLUMNS": _BACKWARD_COLUMNS,
        "STEP": _step(grad.dtype, 4),
    }
    launches = [Launch(box_iou_backward_kernel, (batch * row_tiles * column_tiles,), tiles, _OPTIONS)]
    for boxes, partial, to in ((sets["boxes1"], partial1, grad1), (sets["boxes2"], partial2, grad2)):
        count = partial.shape[2]
        arguments = {"boxes": boxes, "partial": partial, "grad": to, "count": count, "tiles": partial.shape[0]}
        grid = (triton.cdiv(count, _BLOCK),)
        launches.append(Launch(box_iou_finish_kernel, grid, {**arguments, **constants, "BLOCK": _BLOCK}, _OPTIONS))
    return (grad1, grad2), launches


def box_iou(
    boxes1: torch.Tensor, boxes2: torch.Tensor, kind: int, fmt: int, elementwise: bool, eps: float
) -> torch.Tensor:
    """``[B, N, M]`` for ``boxes1 [B, N, 4]`` and ``boxes2 [B, M, 4]``; elementwise ``[N]`` for two ``[N, 4]``."""
    out, launches = _forward(boxes1, boxes2, kind, fmt, elementwise, eps)
    if out.numel():
        run(out.device, launches)
    return out


def box_iou_backward(
    grad: torch.Tensor,
    boxes1: torch.Tensor,
    boxes2: torch.Tensor,
    kind: int,
    fmt: int,
    elementwise: bool,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`box_iou` with respect to both sets of boxes, for ``grad`` of its result's shape."""
    (grad1, grad2), launches = _backward(grad, boxes1, boxes2, kind, fmt, elementwise, eps)
    run(grad.device, launches)
    return grad1.to(boxes1.dtype), grad2.to(boxes2.dtype)


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.bfloat16, torch.float64):  # all halves and float32 are one
        for kind, name in enumerate(("plain", "generalized", "distance", "complete")):
            for elementwise in (False, True):
                shape = (500, 4) if elementwise else (2, 500, 4)
                boxes = torch.empty(shape, dtype=dtype, device="meta")
                label = f"{str(dtype)[6:]}-{name}{'-elementwise' if elementwise else ''}"
                options = (kind, 0, elementwise, 1e-7)
                out, launches = _forward(boxes, boxes, *options)
                yield from ((f"forward-{label}", launch) for launch in launches)
                _, launches = _backward(out, boxes, boxes, *options)
                yield from ((f"backward-{label}", launch) for launch in launches)
    boxes = torch.empty((2, 500, 4), dtype=torch.bfloat16, device="meta")
    for fmt in (1, 2):
        out, launches = _forward(boxes, boxes, 0, fmt, False, 0.0)
        yield from ((f"forward-bfloat16-format-{fmt}", launch) for launch in launches)
        _, launches = _backward(out, boxes, boxes, 0, fmt, False, 0.0)
        yield from ((f"backward-bfloat16-format-{fmt}", launch) for launch in launches)
