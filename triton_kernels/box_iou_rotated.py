"""Intersection over union of rotated boxes.

A program has a tile of pairs. Where the bounds of no pair meet it writes zeros; else it computes them all, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._rotated_iou import EXACT, RotatedBoxes, _box, _iou, _iou_tile, _meet, rotated_boxes

# A pair a thread: twenty doubles each are live, and tiles that are apart as a whole are skipped as a whole.
_ROWS, _COLUMNS = 8, 32
_PAIRS = 256


@triton.jit(do_not_specialize=["n", "m"])
def box_iou_rotated_kernel(
    table1,  # [7, N] as rotated_boxes_kernel writes it
    bounds1,  # [4, N]
    table2,  # [7, M]
    bounds2,  # [4, M]
    out,  # [N, M], written
    n,
    m,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    rows = i < n
    columns = j < m
    at = out + i.to(tl.int64)[:, None] * m + j[None, :]
    mask = rows[:, None] & columns[None, :]
    meet = _meet(bounds1, n, i, rows, bounds2, m, j, columns)
    if tl.max(tl.max(meet.to(tl.int32), axis=1), axis=0) > 0:
        iou = _iou_tile(table1, n, i, rows, table2, m, j, columns)
        tl.store(at, iou.to(out.dtype.element_ty), mask=mask)
    else:
        tl.store(at, tl.zeros([ROWS, COLUMNS], out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["n"])
def box_iou_rotated_elementwise_kernel(
    table1,  # [7, N]
    table2,  # [7, N]
    out,  # [N], written
    n,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    ax, ay, acos, asin, aw, ah, aarea = _box(table1, n, i, mask)
    bx, by, bcos, bsin, bw, bh, barea = _box(table2, n, i, mask)
    iou = _iou(ax, ay, acos, asin, aw, ah, aarea, bx, by, bcos, bsin, bw, bh, barea)
    tl.store(out + i, iou.to(out.dtype.element_ty), mask=mask)


def _launch(a: RotatedBoxes, b: RotatedBoxes, out: torch.Tensor) -> Launch:
    n, m = a.table.shape[1], b.table.shape[1]
    if out.dim() == 1:
        arguments = {"table1": a.table, "table2": b.table, "out": out, "n": n, "BLOCK": _PAIRS}
        grid: tuple[int, ...] = (triton.cdiv(n, _PAIRS),)
        return Launch(box_iou_rotated_elementwise_kernel, grid, arguments, {"num_warps": 8, **EXACT})
    arguments = {"table1": a.table, "bounds1": a.bounds, "table2": b.table, "bounds2": b.bounds, "out": out}
    arguments |= {"n": n, "m": m, "ROWS": _ROWS, "COLUMNS": _COLUMNS}
    grid = (triton.cdiv(m, _COLUMNS), triton.cdiv(n, _ROWS))
    return Launch(box_iou_rotated_kernel, grid, arguments, {"num_warps": 8, **EXACT})


def _prepare(boxes1: torch.Tensor, boxes2: torch.Tensor, elementwise: bool) -> tuple[torch.Tensor, list[Launch]]:
    """The result, and what computes it."""
    size = (boxes1.shape[0],) if elementwise else (boxes1.shape[0], boxes2.shape[0])
    dtype = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    out = torch.empty(size, dtype=dtype, device=boxes1.device)
    a, b = rotated_boxes(boxes1), rotated_boxes(boxes2)
    return out, [a.launch, b.launch, _launch(a, b, out)]


def box_iou_rotated(boxes1: torch.Tensor, boxes2: torch.Tensor, elementwise: bool) -> torch.Tensor:
    """IoU of ``boxes1 [N, 5]`` with ``boxes2 [M, 5]``: ``[N, M]``; elementwise, of each pair of rows, ``[N]``."""
    out, launches = _prepare(boxes1, boxes2, elementwise)
    run(boxes1.device, launches)
    return out


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        boxes = torch.empty((1000, 5), dtype=dtype, device="meta")
        for elementwise in (False, True):
            _, launches = _prepare(boxes, boxes, elementwise)
            name = f"{str(dtype)[6:]}{'-elementwise' if elementwise else ''}"
            yield from ((name, launch) for launch in launches)
