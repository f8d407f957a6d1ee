"""The kernels of select_detections.

An image has a fixed number of slots, each for one candidate: a (row, class) pair. Without ``chosen`` there is one for
each pair; else ``chosen [B, S]`` says which candidate, -1 for none, of the levels or classes that the slots belong to,
``limit`` to each: a row, or within a level ``row * classes + label``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from structops.triton_kernels._nms_kernels import _overlap, _threshold
from structops.triton_kernels._top_k import _falling_key

_EMPTY = tl.constexpr(0x7FFFFFFF)  # keys of empty slots: after NaN's
_EMPTY_DOUBLE = tl.constexpr(0x7FFFFFFFFFFFFFFF)


@triton.jit
def _empty_key(keys):
    return _EMPTY_DOUBLE if keys.dtype.element_ty == tl.int64 else _EMPTY


@triton.jit
def _begin(group, begin1, begin2, begin3, begin4, begin5, begin6, begin7):
    low = tl.where(group == 1, begin1, tl.where(group == 2, begin2, tl.where(group == 3, begin3, 0)))
    high = tl.where(group == 5, begin5, tl.where(group == 6, begin6, tl.where(group == 7, begin7, begin4)))
    return tl.where(group < 4, low, high)


@triton.jit
def _candidate(
    chosen, image, slot, inside, rows, classes, slots, limit, begin1, begin2, begin3, begin4, begin5, begin6, begin7,
    BY_CLASS: tl.constexpr,
):  # fmt: skip
    """Row and label of each slot; the label of an empty one is -1."""
    if chosen is None:
        row = slot // classes
        label = slot % classes
    else:
        index = tl.load(chosen + image * slots + slot, mask=inside, other=-1)
        group = slot // limit
        if BY_CLASS:
            row = index
            label = group
        else:
            row = _begin(group, begin1, begin2, begin3, begin4, begin5, begin6, begin7) + index // classes
            label = index % classes
        label = tl.where(index < 0, -1, label)
        row = tl.where(index < 0, 0, row)
    return row, tl.where(inside, label, -1)


@triton.jit
def _eligible(scores, valid, image, row, label, rows, classes, background, threshold_bits):
    """The score, and the label, -1 where the candidate is none."""
    used = rows.to(tl.int64)
    if valid is not None:
        used = tl.load(valid + image).to(tl.int64)
    label = tl.where((label == background) | (row >= used), -1, label)
    at = (image * rows + row) * classes + label
    score = tl.load(scores + at, mask=label >= 0, other=0.0)
    return score, tl.where(score > _threshold(threshold_bits, scores), label, -1)


@triton.jit
def _quotient(value, by):
    # The plain operator on float32 is a faster, inexact division.
    return tl.div_rn(value, by) if value.dtype == tl.float32 else value / by


@triton.jit
def _divided(value, divisor: tl.constexpr, RECIPROCALS: tl.constexpr):
    """As torch divides by a number: on a GPU it multiplies by the reciprocal."""
    by = tl.full(value.shape, divisor, value.dtype)
    return value * _quotient(tl.full(value.shape, 1.0, value.dtype), by) if RECIPROCALS else _quotient(value, by)


@triton.jit(do_not_specialize=["total", "rows", "classes", "background"])
def detection_mask_kernel(
    scores,  # [B, R, C], written: NaN for the background, and in rows beyond the valid ones
    valid,  # [B] int64 or None
    total,  # B * R * C
    rows,
    classes,
    background,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    out = at % classes == background
    if valid is not None:
        row = at // classes
        out = out | (row % rows >= tl.load(valid + row // rows, mask=inside, other=0))
    tl.store(scores + at, tl.full([BLOCK], float("nan"), scores.dtype.element_ty), mask=inside & out)


PLACES = ["begin1", "begin2", "begin3", "begin4", "begin5", "begin6", "begin7"]
_SCALARS = ["threshold_bits", "images", "rows", "classes", "slots", "limit", "background", *PLACES]


@triton.jit(do_not_specialize=_SCALARS)
def detection_sizes_kernel(
    scores,  # [B, R, C]
    deltas,  # [B, R, C or 1, 4]
    valid,  # [B] int64 or None
    chosen,  # [B, S] int32, -1 for empty; None: a slot for each row and class
    codes,  # [B, S, 2], written: logarithms of width and height
    threshold_bits,
    images,
    rows,
    classes,
    slots,
    limit,
    background,
    begin1,
    begin2,
    begin3,
    begin4,
    begin5,
    begin6,
    begin7,
    BY_CLASS: tl.constexpr,
    CLASS_BOXES: tl.constexpr,
    WEIGHT_WIDTH: tl.constexpr,
    WEIGHT_HEIGHT: tl.constexpr,
    RECIPROCALS: tl.constexpr,
    CLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < images.to(tl.int64) * slots
    image = at // slots
    row, label = _candidate(
        chosen, image, at % slots, inside, rows, classes, slots, limit,
        begin1, begin2, begin3, begin4, begin5, begin6, begin7, BY_CLASS,
    )  # fmt: skip
    _, label = _eligible(scores, valid, image, row, label, rows, classes, background, threshold_bits)
    there = label >= 0
    delta = image * rows + row
    if CLASS_BOXES:
        delta = delta * classes + label
    for side in tl.static_range(2):
        value = tl.load(deltas + delta * 4 + 2 + side, mask=there, other=0.0)
        code = _divided(value, WEIGHT_WIDTH if side == 0 else WEIGHT_HEIGHT, RECIPROCALS)
        limited = tl.full([BLOCK], CLIP, code.dtype)
        tl.store(codes + at * 2 + side, tl.where(code > limited, limited, code), mask=inside)  # NaN stays


@triton.jit
def _clipped(value, limit):
    """As torch.clamp: NaN stays."""
    raised = tl.where(value < 0.0, 0.0, value)
    return tl.where(raised > limit, limit, raised)


@triton.jit(do_not_specialize=_SCALARS)
def detection_boxes_kernel(
    scores,  # [B, R, C]
    deltas,  # [B, R, C or 1, 4]
    proposals,  # [B, R, 4] or [R, 4] (x1, y1, x2, y2)
    sizes,  # [B, 2] (height, width)
    valid,  # [B] int64 or None
    chosen,  # [B, S] int32, -1 for empty; None: a slot for each row and class
    exponentials,  # [B, S, 2] of the codes; None: deltas are distances
    boxes,  # [B, S, 4], written
    keys,  # [B, S] int32, int64 for doubles, written: rising for falling scores
    threshold_bits,
    images,
    rows,
    classes,
    slots,
    limit,
    background,
    begin1,
    begin2,
    begin3,
    begin4,
    begin5,
    begin6,
    begin7,
    BY_CLASS: tl.constexpr,
    CLASS_BOXES: tl.constexpr,
    SHARED: tl.constexpr,
    WEIGHT_X: tl.constexpr,
    WEIGHT_Y: tl.constexpr,
    RECIPROCALS: tl.constexpr,
    MIN_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < images.to(tl.int64) * slots
    image = at // slots
    row, label = _candidate(
        chosen, image, at % slots, inside, rows, classes, slots, limit,
        begin1, begin2, begin3, begin4, begin5, begin6, begin7, BY_CLASS,
    )  # fmt: skip
    score, label = _eligible(scores, valid, image, row, label, rows, classes, background, threshold_bits)
    there = label >= 0
    prior = proposals + (row if SHARED else image * rows + row) * 4
    x1 = tl.load(prior, mask=there, other=0.0)
    y1 = tl.load(prior + 1, mask=there, other=0.0)
    x2 = tl.load(prior + 2, mask=there, other=0.0)
    y2 = tl.load(prior + 3, mask=there, other=0.0)
    delta = image * rows + row
    if CLASS_BOXES:
        delta = delta * classes + label
    d0 = tl.load(deltas + delta * 4, mask=there, other=0.0)
    d1 = tl.load(deltas + delta * 4 + 1, mask=there, other=0.0)
    width = x2 - x1
    height = y2 - y1
    if exponentials is None:
        d2 = tl.load(deltas + delta * 4 + 2, mask=there, other=0.0)
        d3 = tl.load(deltas + delta * 4 + 3, mask=there, other=0.0)
        x = 0.5 * (x1 + x2)
        y = 0.5 * (y1 + y2)
        left = x - d0 * width
        top = y - d1 * height
        right = x + d2 * width
        bottom = y + d3 * height
    else:
        x = _divided(d0, WEIGHT_X, RECIPROCALS) * width + (x1 + 0.5 * width)
        y = _divided(d1, WEIGHT_Y, RECIPROCALS) * height + (y1 + 0.5 * height)
        half_width = 0.5 * (tl.load(exponentials + at * 2, mask=there, other=0.0) * width)
        half_height = 0.5 * (tl.load(exponentials + at * 2 + 1, mask=there, other=0.0) * height)
        left = x - half_width
        top = y - half_height
        right = x + half_width
        bottom = y + half_height
    image_height = tl.load(sizes + image * 2, mask=there, other=0.0)
    image_width = tl.load(sizes + image * 2 + 1, mask=there, other=0.0)
    left = _clipped(left, image_width)
    top = _clipped(top, image_height)
    right = _clipped(right, image_width)
    bottom = _clipped(bottom, image_height)
    if MIN_SIZE is not None:
        least = tl.full([BLOCK], MIN_SIZE, left.dtype)
        there = there & (right - left >= least) & (bottom - top >= least)
    tl.store(boxes + at * 4, left, mask=inside)
    tl.store(boxes + at * 4 + 1, top, mask=inside)
    tl.store(boxes + at * 4 + 2, right, mask=inside)
    tl.store(boxes + at * 4 + 3, bottom, mask=inside)
    tl.store(keys + at, tl.where(there, _falling_key(score), _empty_key(keys)), mask=inside)


_NMS_SCALARS = ["rows", "classes", "slots", "limit", "detections", "iou_bits", *PLACES]


@triton.jit(do_not_specialize=_NMS_SCALARS)
def detection_nms_kernel(
    scores,  # [B, R, C]
    chosen,  # [B, S] int32 or None
    boxes,  # [B, S, 4]
    keys,  # [B, S], rising
    order,  # [B, S] int64: slot of each key
    out_boxes,  # [B, D, 4], written
    out_scores,  # [B, D], written
    labels,  # [B, D] int64, written
    counts,  # [B] int64, written
    rows,
    classes,
    slots,
    limit,
    detections,
    iou_bits,
    begin1,
    begin2,
    begin3,
    begin4,
    begin5,
    begin6,
    begin7,
    BY_CLASS: tl.constexpr,
    BLOCK: tl.constexpr,  # candidates that are looked at together: at most 64, the bits of a word
    KEPT: tl.constexpr,  # and kept ones
):
    image = tl.program_id(0).to(tl.int64)
    threshold = _threshold(iou_bits, boxes)
    lane = tl.arange(0, BLOCK)
    bit = tl.full([BLOCK], 1, tl.int64) << lane.to(tl.int64)
    boxes += image * slots * 4
    out_boxes += image * detections * 4
    out_scores += image * detections
    labels += image * detections
    found = tl.cast(slots, tl.int32) * 0
    begin = found
    more = found == 0
    while more & (begin < slots) & (found < detections):
        place = begin + lane
        there = place < slots
        key = tl.load(keys + image * slots + place, mask=there, other=_empty_key(keys))
        there = key != _empty_key(keys)
        slot = tl.load(order + image * slots + place, mask=there, other=0)
        row, label = _candidate(
            chosen, image, slot, there, rows, classes, slots, limit,
            begin1, begin2, begin3, begin4, begin5, begin6, begin7, BY_CLASS,
        )  # fmt: skip
        x1 = tl.load(boxes + slot * 4, mask=there, other=0.0)
        y1 = tl.load(boxes + slot * 4 + 1, mask=there, other=0.0)
        x2 = tl.load(boxes + slot * 4 + 2, mask=there, other=0.0)
        y2 = tl.load(boxes + slot * 4 + 3, mask=there, other=0.0)
        # What was kept of earlier candidates.
        hit = tl.zeros([BLOCK], tl.int32)
        for first in range(0, found, KEPT):
            other = first + tl.arange(0, KEPT)
            before = other < found
            their_label = tl.load(labels + other, mask=before, other=-2)
            overlap = _overlap(
                tl.load(out_boxes + other * 4, mask=before, other=0.0)[None, :],
                tl.load(out_boxes + other * 4 + 1, mask=before, other=0.0)[None, :],
                tl.load(out_boxes + other * 4 + 2, mask=before, other=0.0)[None, :],
                tl.load(out_boxes + other * 4 + 3, mask=before, other=0.0)[None, :],
                x1[:, None], y1[:, None], x2[:, None], y2[:, None], threshold,
            )  # fmt: skip
            same = their_label[None, :] == label[:, None].to(tl.int64)
            hit = hit | tl.max((same & overlap).to(tl.int32), axis=1)
        alive = there & (hit == 0)
        # These among each other: bit j of a box says that it suppresses the later box j.
        overlap = _overlap(
            x1[:, None], y1[:, None], x2[:, None], y2[:, None],
            x1[None, :], y1[None, :], x2[None, :], y2[None, :], threshold,
        )  # fmt: skip
        pair = overlap & (label[:, None] == label[None, :]) & (lane[:, None] < lane[None, :])
        suppresses = tl.sum(tl.where(pair, bit[None, :], 0), axis=1)
        candidates = tl.sum(tl.where(alive, bit, 0), axis=0)
        # Greedy suppression is the one fixed point of keep = candidates without what keep suppresses.
        kept = candidates
        previous = ~candidates
        while kept != previous:
            previous = kept
            kept = candidates & ~tl.reduce_or(tl.where((previous & bit) != 0, suppresses, 0), axis=0)
        keep = ((kept & bit) != 0).to(tl.int32)
        at = found + tl.cumsum(keep, 0) - keep
        written = (keep != 0) & (at < detections)
        score = tl.load(scores + (image * rows + row) * classes + label, mask=written, other=0.0)
        tl.store(out_boxes + at * 4, x1, mask=written)
        tl.store(out_boxes + at * 4 + 1, y1, mask=written)
        tl.store(out_boxes + at * 4 + 2, x2, mask=written)
        tl.store(out_boxes + at * 4 + 3, y2, mask=written)
        tl.store(out_scores + at, score, mask=written)
        tl.store(labels + at, label.to(tl.int64), mask=written)
        found = tl.minimum(found + tl.sum(keep, 0), detections)
        more = tl.sum(there.to(tl.int32), axis=0) == BLOCK  # after the last candidate, all slots are empty
        begin += BLOCK
        tl.debug_barrier()  # the next turn reads, by other threads, what this one has written
    tl.store(counts + image, found.to(tl.int64))
    for first in range(found // BLOCK * BLOCK, detections, BLOCK):
        at = first + lane
        padding = (at >= found) & (at < detections)
        nothing = tl.zeros([BLOCK], out_boxes.dtype.element_ty)
        for side in tl.static_range(4):
            tl.store(out_boxes + at * 4 + side, nothing, mask=padding)
        tl.store(out_scores + at, nothing, mask=padding)
        tl.store(labels + at, tl.full([BLOCK], -1, tl.int64), mask=padding)
