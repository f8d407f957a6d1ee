"""The kernels of greedy suppression; :mod:`structops.triton_kernels.nms` says how they follow each other."""

from __future__ import annotations

import triton
import triton.language as tl


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
