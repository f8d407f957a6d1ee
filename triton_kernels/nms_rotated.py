"""Greedy non-maximum suppression of rotated boxes.

The course is that of :mod:`structops.triton_kernels.nms`: boxes sorted by (class, score), and for each chunk a mask of
all its pairs, the greedy scan (that file's kernel, which knows nothing of boxes) and a sweep of the chunk's survivors
over later boxes. Pairs come in tiles, and tiles in which the bounds of no pair meet are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, round_down, run
from structops.triton_kernels._nms_kernels import nms_scan_kernel
from structops.triton_kernels._rotated_iou import EXACT, _iou_tile, _meet, rotated_boxes
from structops.triton_kernels._score_order import keys_launch

_CHUNK = 2048
_ROWS = 8  # of a tile, against the 64 boxes of a word
_SWEEP = 32
_SURVIVORS = 128  # boxes of the chunk that a program of the sweep goes through


@triton.jit
def _suppresses(table, bounds, n, i, rows, j, columns, threshold_bits, ROUNDED: tl.constexpr):
    """Of rows i and columns j, whether the IoU, rounded to the result's type, exceeds the threshold."""
    hit = _meet(bounds, n, i, rows, bounds, n, j, columns)
    if tl.max(tl.max(hit.to(tl.int32), axis=1), axis=0) > 0:
        iou = _iou_tile(table, n, i, rows, table, n, j, columns)
        threshold = threshold_bits.to(tl.int64).to(tl.float64, bitcast=True)
        hit = hit & (iou.to(ROUNDED).to(tl.float64) > threshold)
    return hit


@triton.jit(do_not_specialize=["threshold_bits", "n", "first", "last", "words"])
def nms_rotated_mask_kernel(
    table,  # [7, N] as rotated_boxes_kernel writes it
    bounds,  # [4, N]
    ends,  # [N] int32: where each box's class ends; None: at N
    mask,  # [chunk, words] int64, written from the diagonal on: bit j % 64 of word j // 64: i suppresses j
    threshold_bits,
    n,
    first,  # the chunk is [first, last)
    last,
    words,
    ROWS: tl.constexpr,
    ROUNDED: tl.constexpr,
):
    word = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, 64)
    i = first + row
    j = first + word * 64 + lane
    # Words left of the diagonal are never read.
    if word * 64 + 63 >= tl.program_id(1) * ROWS:
        rows = i < last
        end = tl.full([ROWS], last, tl.int32)
        if ends is not None:
            end = tl.minimum(tl.load(ends + i, mask=rows, other=0), last)
        hit = _suppresses(table, bounds, n, i, rows, j, j < last, threshold_bits, ROUNDED)
        hit = hit & (j[None, :] > i[:, None]) & (j[None, :] < end[:, None])
        bit = tl.full([64], 1, tl.int64) << lane.to(tl.int64)
        bits = tl.sum(tl.where(hit, bit[None, :], 0), axis=1)
        tl.store(mask + row.to(tl.int64) * words + word, bits, mask=rows)


@triton.jit(do_not_specialize=["threshold_bits", "n", "first", "last"])
def nms_rotated_sweep_kernel(
    table,  # [7, N]
    bounds,  # [4, N]
    ends,  # [N] int32 or None
    keep,  # [N] int8
    removed,  # [N] int8, written: 1 where a survivor of the chunk suppresses a box after the chunk
    threshold_bits,
    n,
    first,  # the chunk is [first, last)
    last,
    SURVIVORS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROUNDED: tl.constexpr,
):
    j = last + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    begin = first + tl.program_id(1) * SURVIVORS
    stop = tl.minimum(begin + SURVIVORS, last)
    reach = n
    if ends is not None:
        reach = tl.load(ends + stop - 1)
    if last + tl.program_id(0) * BLOCK < reach:
        gone = j < 0
        for at in range(begin, stop, ROWS):
            i = at + tl.arange(0, ROWS)
            rows = i < stop
            rows = rows & (tl.load(keep + i, mask=rows, other=0) != 0)
            hit = _suppresses(table, bounds, n, i, rows, j, (j < n) & ~gone, threshold_bits, ROUNDED)
            if ends is not None:
                end = tl.load(ends + i, mask=rows, other=0)
                hit = hit & (j[None, :] < end[:, None])
            gone = gone | (tl.max(hit.to(tl.int32), axis=0) > 0)
        # Several programs may write the same 1.
        tl.store(removed + j, tl.full([BLOCK], 1, tl.int8), mask=gone & (j < n))


def _suppress_launches(
    boxes: torch.Tensor, order: torch.Tensor, ends: torch.Tensor | None, iou_threshold: float
) -> tuple[torch.Tensor, list[Launch]]:
    """Flags ``[N]`` of the boxes kept, in ``order [N]``, and what computes them."""
    n, device = boxes.shape[0], boxes.device
    prepared = rotated_boxes(boxes, order)
    removed = torch.zeros(n, dtype=torch.int8, device=device)
    keep = torch.empty(n, dtype=torch.int8, device=device)
    words = triton.cdiv(min(n, _CHUNK), 64)
    mask = torch.empty((min(n, _CHUNK), words), dtype=torch.int64, device=device)
    double = boxes.dtype == torch.float64
    pairs = {
        "table": prepared.table,
        "bounds": prepared.bounds,
        "ends": ends,
        "threshold_bits": double_bits(round_down(iou_threshold, torch.float64 if double else torch.float32)),
        "n": n,
        "ROWS": _ROWS,
        "ROUNDED": tl.float64 if double else tl.float32,
    }
    launches = [prepared.launch]
    for first in range(0, n, _CHUNK):
        last = min(first + _CHUNK, n)
        size = last - first
        chunk = {"first": first, "last": last}
        grid = (triton.cdiv(size, 64), triton.cdiv(size, _ROWS))
        build = {**pairs, **chunk, "mask": mask, "words": words}
        launches.append(Launch(nms_rotated_mask_kernel, grid, build, {"num_warps": 8, **EXACT}))
        scan = {"mask": mask, "ends": ends, "removed": removed, "keep": keep, "n": n, **chunk}
        # Of one image; programs for classes that begin in a stretch, without classes there is one.
        scan |= {"rows": mask.shape[0], "words": words, "BOXES": 256, "WORDS": _CHUNK // 64}
        grid = (1, 1 if ends is None else triton.cdiv(size, 256))
        launches.append(Launch(nms_scan_kernel, grid, scan, {"num_warps": 8}))
        if last < n:
            sweep = {**pairs, **chunk, "keep": keep, "removed": removed, "SURVIVORS": _SURVIVORS, "BLOCK": _SWEEP}
            grid = (triton.cdiv(n - last, _SWEEP), triton.cdiv(size, _SURVIVORS))
            launches.append(Launch(nms_rotated_sweep_kernel, grid, sweep, {"num_warps": 8, **EXACT}))
    return keep, launches


def _descending(scores: torch.Tensor) -> torch.Tensor:
    """Indices by falling score; ties by the lower index, NaN last."""
    keys, launch = keys_launch(scores[None])
    run(scores.device, [launch])
    return torch.sort(keys[0], descending=True, stable=True).indices


def nms_rotated(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes ``[N, 5]`` that greedy suppression keeps, by falling score ``[N]``."""
    if boxes.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    order = _descending(scores)
    keep, launches = _suppress_launches(boxes, order, None, iou_threshold)
    run(boxes.device, launches)
    return order[keep.view(torch.bool)]


def batched_nms_rotated(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """The same, where a box suppresses only boxes of its own class ``idxs [N]``."""
    if boxes.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    by_score = _descending(scores)
    classes, by_class = torch.sort(idxs[by_score], stable=True)
    ends = torch.searchsorted(classes, classes, right=True, out_int32=True)
    keep, launches = _suppress_launches(boxes, by_score[by_class], ends, iou_threshold)
    run(boxes.device, launches)
    kept_by_score = torch.empty_like(keep).scatter_(0, by_class, keep)
    return by_score[kept_by_score.view(torch.bool)]


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        boxes = torch.empty((5000, 5), dtype=dtype, device="meta")
        order = torch.empty(5000, dtype=torch.int64, device="meta")
        for ends in (None, torch.empty(5000, dtype=torch.int32, device="meta")):
            _, launches = _suppress_launches(boxes, order, ends, 0.5)
            yield from ((f"{str(dtype)[6:]}{'' if ends is None else '-batched'}", launch) for launch in launches)
