"""Greedy non-maximum suppression.

Boxes are sorted by (class, score), so that a class is a run of neighbours: its *segment*, of which plain NMS has one.
Then, for each chunk of at most 8192 boxes:

1. *mask*: all pairs of the chunk, one bit each (8 MiB at most, however many boxes there are);
2. *scan*: the greedy decision, segment by segment in parallel, 64 boxes at a time within a segment;
3. *sweep*: the chunk's survivors against every later box of the same segment.

Each launch is for all images of a batch; plain NMS is a batch of one.

Nothing returns to the host before the size of the result, the one thing a dynamic shape needs to know. Block sizes are
fixed: the cost hardly depends on the data, and autotuning would time whole calls.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run

_CHUNK = 8192
_CHUNK_OF_MANY = 2048  # of more than _FEW_IMAGES, so that the masks stay small: half a MiB each
_FEW_IMAGES = 4
_ROWS = 128  # two rows a thread: half the column loads per pair
_SWEEP = 128  # both boxes and survivors of a sweep program


@triton.jit(do_not_specialize=["n", "threshold_bits"])
def nms_keys_kernel(
    scores,  # [B, N]
    counts,  # [B] int64: the first so many boxes take part, or None
    taking,  # [B, N] int8: which boxes take part, or None
    keys,  # [B, N] int32, or int64 for doubles, written: in the order of the scores; NaN below -inf, then the others
    image_stride,
    stride,
    threshold_bits,
    n,
    BY_SCORE: tl.constexpr,  # only scores above the threshold take part
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(n, BLOCK)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    i = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    score = tl.load(scores + image * image_stride + i.to(tl.int64) * stride, mask=mask, other=0.0)
    takes = mask
    if BY_SCORE:
        takes = takes & (score.to(tl.float64) > threshold_bits.to(tl.int64).to(tl.float64, bitcast=True))
    if counts is not None:
        takes = takes & (i < tl.load(counts + image))
    if taking is not None:
        takes = takes & (tl.load(taking + image * n + i, mask=mask, other=0) != 0)
    if keys.dtype.element_ty == tl.int64:
        bits = score.to(tl.int64, bitcast=True)
        lowest = -0x8000000000000000
        magnitude = 0x7FFFFFFFFFFFFFFF
    else:
        score = score.to(tl.float32)
        bits = score.to(tl.int32, bitcast=True)
        lowest = -0x80000000
        magnitude = 0x7FFFFFFF
    key = tl.where(bits < 0, bits ^ magnitude, bits)
    key = tl.where(score == 0.0, 0, key)  # -0.0 ties with 0.0
    key = tl.where(score != score, lowest + 1, key)
    tl.store(keys + image * n + i, tl.where(takes, key, lowest), mask=mask)


@triton.jit(do_not_specialize=["n"])
def nms_gather_kernel(
    boxes,  # [B, N, 4] (x1, y1, x2, y2)
    order,  # [B, N] int64
    keys,  # [B, N] of each box, lowest where it takes no part; None: all take part
    sorted_boxes,  # [B, 4, N] float32 or float64, written
    removed,  # [B, N] int8, written: 1 where a box takes no part
    image_stride,
    box_stride,
    coordinate_stride,
    n,
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(n, BLOCK)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    i = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    at = tl.load(order + image * n + i, mask=mask, other=0)
    box = boxes + image * image_stride + at * box_stride
    for coordinate in tl.static_range(4):
        value = tl.load(box + coordinate * coordinate_stride, mask=mask, other=0.0)
        column = sorted_boxes + (image * 4 + coordinate) * n
        tl.store(column + i, value.to(sorted_boxes.dtype.element_ty), mask=mask)
    gone = tl.zeros([BLOCK], tl.int8)
    if keys is not None:
        key = tl.load(keys + image * n + at, mask=mask, other=0)
        lowest = -0x8000000000000000 if keys.dtype.element_ty == tl.int64 else -0x80000000
        gone = (key == lowest).to(tl.int8)
    tl.store(removed + image * n + i, gone, mask=mask)


@triton.jit
def _overlap(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2, threshold):
    """Whether the IoU exceeds the threshold, each operation rounded once, in the order of the definition.

    A NaN coordinate makes its box's area NaN, and with it the IoU: no overlap. (The minimum and maximum may drop a NaN,
    the differences do not.)
    """
    width = tl.maximum(tl.minimum(ax2, bx2) - tl.maximum(ax1, bx1), 0.0)
    height = tl.maximum(tl.minimum(ay2, by2) - tl.maximum(ay1, by1), 0.0)
    intersection = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    # The plain operator on float32 is a faster, inexact division.
    iou = tl.div_rn(intersection, union) if intersection.dtype == tl.float32 else intersection / union
    return (intersection > 0.0) & (iou > threshold)


@triton.jit
def _threshold(bits, boxes):
    """The threshold in the boxes' type; exact, since the launcher rounded it down to that."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(boxes.dtype.element_ty)


@triton.jit
def _bits_from(lowest):
    """A word of ones from this bit on; all below 0, none above 63."""
    ones = tl.full(lowest.shape, -1, tl.int64)
    shifted = ones << tl.minimum(tl.maximum(lowest, 0), 63).to(tl.int64)
    return tl.where(lowest > 63, ones * 0, shifted)


@triton.jit(do_not_specialize=["threshold_bits", "n", "first", "last", "rows", "words"])
def nms_mask_kernel(
    sorted_boxes,  # [B, 4, N]
    ends,  # [B, N] int32: where each box's segment ends; None: at N
    mask,  # [B, rows, words] int64, written from the diagonal on: bit j % 64 of word j // 64: i suppresses j
    threshold_bits,
    n,
    first,  # the chunk is [first, last)
    last,
    rows,  # of the mask, of one image
    words,
    ROWS: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    word = tl.program_id(1)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    column = first + word * 64
    lowest_row = first + tl.program_id(2) * ROWS
    # Words left of the diagonal are never read.
    if column + 63 >= lowest_row:
        i = first + row
        in_chunk = i < last
        reach = last
        if ends is not None:
            ends += image * n
            reach = tl.minimum(tl.load(ends + tl.minimum(lowest_row + ROWS, last) - 1), last)
        bits = tl.zeros([ROWS], tl.int64)
        x1 = sorted_boxes + image * n * 4
        y1 = x1 + n
        x2 = y1 + n
        y2 = x2 + n
        threshold = _threshold(threshold_bits, sorted_boxes)
        if column < reach:
            ax1 = tl.load(x1 + i, mask=in_chunk, other=0.0)
            ay1 = tl.load(y1 + i, mask=in_chunk, other=0.0)
            ax2 = tl.load(x2 + i, mask=in_chunk, other=0.0)
            ay2 = tl.load(y2 + i, mask=in_chunk, other=0.0)
            # A thread owns rows and walks along columns that all threads read at once: no bits travel between threads.
            # At a time as many columns as registers have room for.
            COLUMNS: tl.constexpr = 4 if sorted_boxes.dtype.element_ty == tl.float64 else 8
            for c in range(0, 64, COLUMNS):
                some = tl.zeros([ROWS], tl.int32)
                for u in tl.static_range(COLUMNS):
                    j = column + c + u
                    at = tl.minimum(j, last - 1)
                    hit = _overlap(
                        ax1,
                        ay1,
                        ax2,
                        ay2,
                        tl.load(x1 + at),
                        tl.load(y1 + at),
                        tl.load(x2 + at),
                        tl.load(y2 + at),
                        threshold,
                    )
                    some = some | (hit.to(tl.int32) << u)
                bits = bits | (some.to(tl.int64) << c)
            # Of them those of later boxes in the segment, [i + 1, end).
            end = tl.full([ROWS], last, tl.int32)
            if ends is not None:
                end = tl.minimum(tl.load(ends + i, mask=in_chunk, other=0), last)
            bits = bits & _bits_from(i + 1 - column) & ~_bits_from(end - column)
        tl.store(mask + (image * rows + row) * words + word, bits, mask=in_chunk)


@triton.jit
def _segment_boundary(ends, x, first, last):
    """The first segment boundary of the chunk at or after x."""
    inner = tl.minimum(tl.load(ends + tl.maximum(x - 1, 0)), last)
    return tl.where(x <= first, first, tl.where(x >= last, last, inner))


@triton.jit(do_not_specialize=["n", "first", "last", "rows", "words"])
def nms_scan_kernel(
    mask,  # [B, rows, words] int64
    ends,  # [B, N] int32 or None
    removed,  # [B, N] int8: suppressed by an earlier chunk, or taking no part
    keep,  # [B, N] int8, written
    n,
    first,
    last,
    rows,
    words,
    BOXES: tl.constexpr,  # boxes per program: it takes the segments that begin among them
    WORDS: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    removed += image * n
    keep += image * n
    begin = first
    end = last
    if ends is not None:
        ends += image * n
        x = first + tl.program_id(1) * BOXES
        begin = _segment_boundary(ends, tl.minimum(x, last), first, last)
        end = _segment_boundary(ends, tl.minimum(x + BOXES, last), first, last)
    lane = tl.arange(0, 64)
    word = tl.arange(0, WORDS)
    last_word = (end - 1 - first) // 64
    dead = tl.zeros([WORDS], tl.int64)  # a bit for every box of the chunk
    # No turns at all when end <= begin.
    for block in range((begin - first) // 64, tl.where(end > begin, last_word + 1, 0)):
        i = first + block * 64 + lane
        mine = (i >= begin) & (i < end)
        row = mask + (image * rows + block * 64 + lane) * words
        diagonal = tl.load(row + block, mask=mine, other=0)
        alive = mine & (tl.load(removed + i, mask=mine, other=1) == 0)
        bit = tl.full([64], 1, tl.int64) << lane.to(tl.int64)
        candidates = tl.sum(tl.where(alive, bit, 0), axis=0) & ~tl.sum(tl.where(word == block, dead, 0), axis=0)
        # Greedy suppression is the one fixed point of keep = candidates without what keep suppresses; each turn
        # settles at least the next box that is not settled, in practice nearly all of them.
        kept = candidates
        before = ~candidates
        while kept != before:
            before = kept
            kept = candidates & ~tl.reduce_or(tl.where((before & bit) != 0, diagonal, 0), axis=0)
        flag = (kept & bit) != 0
        tl.store(keep + i, flag.to(tl.int8), mask=mine)
        later = flag[:, None] & ((word > block) & (word <= last_word))[None, :]
        dead = dead | tl.reduce_or(tl.load(row[:, None] + word[None, :], mask=later, other=0), axis=0)


@triton.jit(do_not_specialize=["threshold_bits", "n", "first", "last"])
def nms_sweep_kernel(
    sorted_boxes,  # [B, 4, N]
    ends,  # [B, N] int32 or None
    keep,  # [B, N] int8
    removed,  # [B, N] int8, written: 1 where a survivor of the chunk suppresses a box after the chunk
    threshold_bits,
    n,
    first,  # the chunk is [first, last)
    last,
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(n - last, BLOCK)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    lowest = last + (tl.program_id(0) % tiles) * BLOCK
    keep += image * n
    j = lowest + tl.arange(0, BLOCK)
    begin = first + tl.program_id(1) * BLOCK
    end = tl.minimum(begin + BLOCK, last)
    reach = n
    if ends is not None:
        ends += image * n
        reach = tl.load(ends + end - 1)
    if lowest < reach:
        x1 = sorted_boxes + image * n * 4
        y1 = x1 + n
        x2 = y1 + n
        y2 = x2 + n
        threshold = _threshold(threshold_bits, sorted_boxes)
        in_range = j < n
        bx1 = tl.load(x1 + j, mask=in_range, other=0.0)
        by1 = tl.load(y1 + j, mask=in_range, other=0.0)
        bx2 = tl.load(x2 + j, mask=in_range, other=0.0)
        by2 = tl.load(y2 + j, mask=in_range, other=0.0)
        hit = j < 0
        for i in range(begin, end):
            if tl.load(keep + i) != 0:
                segment_end = reach
                if ends is not None:
                    segment_end = tl.load(ends + i)
                overlap = _overlap(
                    tl.load(x1 + i), tl.load(y1 + i), tl.load(x2 + i), tl.load(y2 + i), bx1, by1, bx2, by2, threshold
                )
                hit = hit | (overlap & (j < segment_end))
        # Several programs may write the same 1.
        tl.store(removed + image * n + j, tl.full([BLOCK], 1, tl.int8), mask=hit & in_range)


def round_down(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of a dtype that is not above: a float32 IoU exceeds the one when it exceeds the other."""
    if dtype == torch.float64:
        return threshold
    # Without torch, where a number that is read counts as a wait for a device.
    rounded = ctypes.c_float(threshold).value
    if rounded > threshold:
        (bits,) = struct.unpack("<i", struct.pack("<f", rounded))
        lower = bits - 1 if rounded > 0 else bits + 1 if rounded < 0 else -0x7FFFFFFF  # the one below 0: -2 ** -149
        (rounded,) = struct.unpack("<f", struct.pack("<i", lower))
    return rounded


def keys_launch(
    scores: torch.Tensor,  # [B, N]
    counts: torch.Tensor | None = None,
    taking: torch.Tensor | None = None,
    score_threshold: float | None = None,
) -> tuple[torch.Tensor, Launch]:
    """Keys ``[B, N]`` whose falling order is that of the scores, and what computes them."""
    images, n = scores.shape
    dtype = torch.int64 if scores.dtype == torch.float64 else torch.int32
    keys = torch.empty((images, n), dtype=dtype, device=scores.device)
    arguments = {
        "scores": scores,
        "counts": counts,
        "taking": taking,
        "keys": keys,
        "image_stride": scores.stride(0),
        "stride": scores.stride(1),
        "threshold_bits": double_bits(score_threshold or 0.0),
        "n": n,
        "BY_SCORE": score_threshold is not None,
        "BLOCK": 1024,
    }
    return keys, Launch(nms_keys_kernel, (images * triton.cdiv(n, 1024),), arguments, {"num_warps": 4})


def suppress_launches(
    boxes: torch.Tensor,  # [B, N, 4]
    order: torch.Tensor,  # [B, N]
    keys: torch.Tensor | None,  # [B, N]
    ends: torch.Tensor | None,  # [B, N]
    compute: torch.dtype,
    iou_threshold: float,
) -> tuple[torch.Tensor, list[Launch]]:
    """Flags ``[B, N]`` of the boxes kept, in ``order``, and what computes them."""
    (images, n), device = order.shape, boxes.device
    largest = _CHUNK if images <= _FEW_IMAGES else _CHUNK_OF_MANY
    rows, words = min(n, largest), triton.cdiv(min(n, largest), 64)
    sorted_boxes = torch.empty((images, 4, n), dtype=compute, device=device)
    removed = torch.empty((images, n), dtype=torch.int8, device=device)
    keep = torch.empty((images, n), dtype=torch.int8, device=device)
    mask = torch.empty((images, rows, words), dtype=torch.int64, device=device)
    gather = {
        "boxes": boxes,
        "order": order,
        "keys": keys,
        "sorted_boxes": sorted_boxes,
        "removed": removed,
        "image_stride": boxes.stride(0),
        "box_stride": boxes.stride(1),
        "coordinate_stride": boxes.stride(2),
        "n": n,
        "BLOCK": 256,
    }
    launches = [Launch(nms_gather_kernel, (images * triton.cdiv(n, 256),), gather, {"num_warps": 4})]
    pairs = {
        "sorted_boxes": sorted_boxes,
        "ends": ends,
        "threshold_bits": double_bits(round_down(iou_threshold, compute)),
        "n": n,
    }
    # A fused multiply-add would round the areas differently from the definition.
    exact = {"enable_fp_fusion": False}
    # Few distinct widths: each is a kernel to compile.
    padded_words = next(w for w in (16, 32, 128) if words <= w)
    for first in range(0, n, largest):
        last = min(first + largest, n)
        size = last - first
        chunk = {"first": first, "last": last}
        build = {**pairs, **chunk, "mask": mask, "rows": rows, "words": words, "ROWS": _ROWS}
        grid = (images, triton.cdiv(size, 64), triton.cdiv(size, _ROWS))
        launches.append(Launch(nms_mask_kernel, grid, build, {"num_warps": _ROWS // 64, **exact}))
        scan = {"mask": mask, "ends": ends, "removed": removed, "keep": keep, "n": n, **chunk}
        scan |= {"rows": rows, "words": words, "BOXES": 256, "WORDS": padded_words}
        # Programs for segments that begin in a stretch; without classes there is one segment.
        grid = (images, 1 if ends is None else triton.cdiv(size, 256))
        # Of 128 words, 8 warps would take 198 registers a thread.
        launches.append(Launch(nms_scan_kernel, grid, scan, {"num_warps": 4 if padded_words == 16 else 16}))
        if last < n:
            sweep = {**pairs, **chunk, "keep": keep, "removed": removed, "BLOCK": _SWEEP}
            grid = (images * triton.cdiv(n - last, _SWEEP), triton.cdiv(size, _SWEEP))
            launches.append(Launch(nms_sweep_kernel, grid, sweep, {"num_warps": 2, **exact}))
    return keep, launches


def compute_dtype(boxes: torch.Tensor, scores: torch.Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32


def suppress(
    boxes: torch.Tensor,  # [B, N, 4]
    scores: torch.Tensor,  # [B, N]
    idxs: torch.Tensor | None,  # [B, N]
    iou_threshold: float,
    **which: Any,  # counts, taking, score_threshold, as keys_launch takes them
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes by falling score (ties by the lower index, NaN last), and flags of those kept: both ``[B, N]``."""
    keys, launch = keys_launch(scores, **which)
    run(scores.device, [launch])
    by_score = torch.sort(keys, descending=True, stable=True).indices
    order, ends, by_class = by_score, None, None
    if idxs is not None:
        classes, by_class = torch.sort(idxs.gather(1, by_score), stable=True)
        ends = torch.searchsorted(classes, classes, right=True, out_int32=True)
        order = by_score.gather(1, by_class)
    left_out = keys if which else None
    keep, launches = suppress_launches(boxes, order, left_out, ends, compute_dtype(boxes, scores), iou_threshold)
    run(boxes.device, launches)
    return by_score, keep if by_class is None else torch.empty_like(keep).scatter_(1, by_class, keep)


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes ``[N, 4]`` (x1, y1, x2, y2) that greedy suppression keeps, by falling score ``[N]``."""
    by_score, keep = suppress(boxes[None], scores[None], None, iou_threshold)
    return by_score[keep.view(torch.bool)]


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The same, where a box suppresses only boxes of its own class ``idxs [N]``."""
    by_score, keep = suppress(boxes[None], scores[None], idxs[None], iou_threshold)
    return by_score[keep.view(torch.bool)]


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for n in (1000, 20000):
            boxes = torch.empty((1, n, 4), dtype=dtype, device="meta")
            scores = torch.empty((1, n), dtype=dtype, device="meta")
            order = torch.empty((1, n), dtype=torch.int64, device="meta")
            yield f"{str(dtype)[6:]}-{n}", keys_launch(scores)[1]
            for ends in (None, torch.empty((1, n), dtype=torch.int32, device="meta")):
                _, launches = suppress_launches(boxes, order, None, ends, compute_dtype(boxes, scores), 0.5)
                name = f"{str(dtype)[6:]}-{n}{'' if ends is None else '-batched'}"
                yield from ((name, launch) for launch in launches)
