"""The last stage of a detector, from scores to detections.

An image has a fixed number of slots, each for one candidate: a (row, class) pair. Torch takes softmax or sigmoid, the
exponentials and the sort; kernels do what is between them:

1. *mask*: scores that may not be chosen, before the best of each level or class are;
2. *sizes*: the logarithms of a candidate's width and height;
3. *boxes*: its box, and a key that sorts as its score does;
4. *nms*: a program for each image walks down the scores and stops at the last detection wanted. A candidate meets only
   what is kept already, of its class.

Nothing returns to the host, so empty slots are sorted too, after all others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run
from structops.triton_kernels._top_k import ScoreMap, _falling_key, top_k
from structops.triton_kernels.nms import _overlap, _threshold, round_down

from structops.reference.select_detections import scores_of

_LEVELS = 8
_EMPTY = tl.constexpr(0x7FFFFFFF)  # keys of empty slots: after NaN's
_EMPTY_DOUBLE = tl.constexpr(0x7FFFFFFFFFFFFFFF)
# A fused multiply-add would round boxes otherwise than torchvision's separate operations.
_EXACT = {"num_warps": 4, "enable_fp_fusion": False}


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


_PLACES = ["begin1", "begin2", "begin3", "begin4", "begin5", "begin6", "begin7"]
_SCALARS = ["threshold_bits", "images", "rows", "classes", "slots", "limit", "background", *_PLACES]


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


_NMS_SCALARS = ["rows", "classes", "slots", "limit", "detections", "iou_bits", *_PLACES]


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


def _begins(levels: Sequence[int]) -> dict[str, int]:
    begins = [sum(levels[:level]) for level in range(1, len(levels))]
    return dict(zip(_PLACES, begins + [0] * (_LEVELS - 1 - len(begins)), strict=True))


def _scores(
    class_scores: torch.Tensor, centerness: torch.Tensor | None, levels: Sequence[int], sigmoid: bool
) -> torch.Tensor:
    """``[B, R, C]``, fresh"""
    if class_scores.device.type == "cpu":  # under the interpreter, where torch's sigmoid depends on an element's place
        return scores_of(class_scores, centerness, list(levels), sigmoid)
    if not sigmoid:
        return class_scores.softmax(-1)
    scores = class_scores.sigmoid()
    return scores if centerness is None else scores.mul_(centerness.sigmoid()[..., None]).sqrt_()


def _maps(scores: torch.Tensor, levels: Sequence[int], by_class: bool) -> list[ScoreMap]:
    """The segments of which the best are wanted: levels, row by row, or classes."""
    images, rows, classes = scores.shape
    segments = {"images": images, "image_stride": rows * classes}
    if by_class:
        return [ScoreMap(scores, (1, 1, rows), (0, 0, classes), **segments, classes=classes, class_stride=1)]
    flat = scores.view(images, rows * classes)
    found, begin = [], 0
    for size in levels:
        end = begin + size * classes
        found.append(ScoreMap(flat[:, begin:end], (1, 1, end - begin), (0, 0, 1), **segments))
        begin = end
    return found


def launches(
    scores: torch.Tensor,  # [B, R, C]
    deltas: torch.Tensor,  # [B, R, 4 * C or 4]
    proposals: torch.Tensor,  # [B, R, 4] or [R, 4]
    sizes: torch.Tensor,  # [B, 2]
    valid: torch.Tensor | None,  # [B] int64
    chosen: torch.Tensor | None,  # [B, S] int32
    limit: int,
    by_class: bool,
    levels: Sequence[int],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What is computed before the sort: tensors by name, and launches that torch's exponential comes between."""
    images, rows, classes = scores.shape
    slots = rows * classes if chosen is None else chosen.shape[1]
    shape, device, dtype = (images, slots), scores.device, scores.dtype
    boxes = torch.empty((*shape, 4), dtype=dtype, device=device)
    keys = torch.empty(shape, dtype=torch.int64 if dtype == torch.float64 else torch.int32, device=device)
    x, y, width, height = options["weights"]
    place = {"rows": rows, "classes": classes, "slots": slots, "limit": limit, **_begins(levels), "BY_CLASS": by_class}
    shared = {"scores": scores, "deltas": deltas, "valid": valid, "chosen": chosen, "images": images, **place}
    shared |= {"threshold_bits": double_bits(options["score_threshold"]), "background": options["background"]}
    shared |= {"CLASS_BOXES": deltas.shape[2] != 4, "RECIPROCALS": device.type != "cpu", "BLOCK": 256}
    grid = (triton.cdiv(images * slots, 256),)
    codes = coded = None
    if not options["distances"]:
        codes = torch.empty((*shape, 2), dtype=dtype, device=device)
        weights = {"WEIGHT_WIDTH": width, "WEIGHT_HEIGHT": height, "CLIP": options["clip"]}
        coded = Launch(detection_sizes_kernel, grid, {**shared, "codes": codes, **weights}, _EXACT)
    decoded = {**shared, "proposals": proposals, "sizes": sizes, "exponentials": codes, "boxes": boxes, "keys": keys}
    decoded |= {"SHARED": proposals.dim() == 2, "WEIGHT_X": x, "WEIGHT_Y": y, "MIN_SIZE": options["min_size"]}
    return {
        "codes": codes,
        "coded": coded,
        "boxes": boxes,
        "keys": keys,
        "decoded": Launch(detection_boxes_kernel, grid, decoded, _EXACT),
        "place": place,
    }


def _nms_launch(
    scores: torch.Tensor,
    chosen: torch.Tensor | None,
    boxes: torch.Tensor,
    keys: torch.Tensor,
    order: torch.Tensor,
    place: dict[str, Any],
    iou_threshold: float,
    detections: int,
) -> tuple[tuple[torch.Tensor, ...], Launch]:
    images, device, dtype = len(boxes), boxes.device, boxes.dtype
    found = (
        torch.empty((images, detections, 4), dtype=dtype, device=device),
        torch.empty((images, detections), dtype=dtype, device=device),
        torch.empty((images, detections), dtype=torch.int64, device=device),
        torch.empty(images, dtype=torch.int64, device=device),
    )
    arguments = {"scores": scores, "chosen": chosen, "boxes": boxes, "keys": keys, "order": order, **place}
    arguments |= dict(zip(("out_boxes", "out_scores", "labels", "counts"), found, strict=True))
    arguments |= {"detections": detections, "iou_bits": double_bits(round_down(iou_threshold, dtype))}
    # All pairs of a block are in registers: more than 32 doubles spill.
    wide = dtype == torch.float64
    arguments |= {"BLOCK": 32 if wide else 64, "KEPT": 32}
    return found, Launch(detection_nms_kernel, (images,), arguments, {**_EXACT, "num_warps": 8 if wide else 16})


def _mask_launch(scores: torch.Tensor, valid: torch.Tensor | None, background: int) -> Launch:
    _, rows, classes = scores.shape
    total = scores.numel()
    arguments = {"scores": scores, "valid": valid, "total": total, "rows": rows, "classes": classes}
    arguments |= {"background": background, "BLOCK": 1024}
    return Launch(detection_mask_kernel, (triton.cdiv(total, 1024),), arguments, {"num_warps": 4})


def select_detections(
    class_scores: torch.Tensor,
    box_deltas: torch.Tensor,
    proposals: torch.Tensor,
    image_sizes: torch.Tensor,
    valid: torch.Tensor | None,
    centerness: torch.Tensor | None,
    levels: list[int],
    sigmoid: bool,
    background: int,
    distances: bool,
    weights: list[float],
    clip: float,
    score_threshold: float,
    iou_threshold: float,
    min_size: float | None,
    topk_candidates: int,
    per_class_topk: int,
    detections: int,
) -> tuple[torch.Tensor, ...]:
    """Boxes ``[B, D, 4]``, scores ``[B, D]``, labels ``[B, D]`` and counts ``[B]`` from logits ``[B, R, C]``."""
    given = (class_scores, box_deltas, proposals, centerness)
    dtype = torch.float64 if any(t is not None and t.dtype == torch.float64 for t in given) else torch.float32
    device, classes = class_scores.device, class_scores.shape[2]
    deltas, proposals, sizes = (t.to(dtype).contiguous() for t in (box_deltas, proposals, image_sizes))
    valid = None if valid is None else valid.long().contiguous()
    centerness = None if centerness is None else centerness.to(dtype).contiguous()
    scores = _scores(class_scores.to(dtype).contiguous(), centerness, levels, sigmoid)
    chosen, limit, by_class = None, 1, per_class_topk > 0
    levels = [n for n in levels if n > 0 and not by_class] or [class_scores.shape[1]]
    if topk_candidates or per_class_topk:
        limit = min(topk_candidates + per_class_topk, max(levels) * (1 if by_class else classes))
        if valid is not None or (background >= 0 and not by_class):
            run(device, [_mask_launch(scores, valid, background)])
        # Greater than the threshold in the scores' type, as torch compares them.
        above = score_threshold if dtype == torch.float64 else ctypes.c_float(score_threshold).value
        chosen = top_k(_maps(scores, levels, by_class), limit, above).flatten(1)
    options = {"weights": weights, "clip": clip, "min_size": min_size, "distances": distances}
    options |= {"score_threshold": score_threshold, "background": background}
    todo = launches(scores, deltas, proposals, sizes, valid, chosen, limit, by_class, levels, options)
    if not distances:
        run(device, [todo["coded"]])
        todo["codes"].exp_()
    run(device, [todo["decoded"]])
    keys, order = todo["keys"].sort(stable=True)
    found, launch = _nms_launch(scores, chosen, todo["boxes"], keys, order, todo["place"], iou_threshold, detections)
    run(device, [launch])
    return found


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""

    def meta(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    options = {"weights": [10.0, 10.0, 5.0, 5.0], "clip": 4.135, "score_threshold": 0.05}
    images, rows, classes = 2, 1000, 91
    # Halves are computed with in float32.
    for name, dtype in (("bfloat16-in-float32", torch.float32), ("float64", torch.float64)):
        scores, deltas = meta(images, rows, classes, dtype=dtype), meta(images, rows, 4 * classes, dtype=dtype)
        proposals, sizes = meta(images, rows, 4, dtype=dtype), meta(images, 2, dtype=dtype)
        valid = meta(images, dtype=torch.int64)
        yield name, _mask_launch(scores, valid, 0)
        best = meta(images, 5 * 1000, dtype=torch.int32)
        kinds: dict[str, tuple] = {
            "two-stage": (deltas, proposals, valid, None, 1, False, [rows]),
            "levels": (deltas[..., :4], proposals[0], None, best, 1000, False, [800, 100, 50, 30, 20]),
            "classes": (deltas[..., :4], proposals[0], None, best, 400, True, [rows]),
        }
        for kind, (codes, priors, used, chosen, limit, by_class, levels) in kinds.items():
            mine = {**options, "distances": kind == "levels", "background": 0 if kind == "two-stage" else -1}
            mine["min_size"] = 1e-2 if kind == "two-stage" else None
            todo = launches(scores, codes, priors, sizes, used, chosen, limit, by_class, levels, mine)
            if todo["coded"]:
                yield f"{name}-{kind}", todo["coded"]
            yield f"{name}-{kind}", todo["decoded"]
            order = meta(*todo["keys"].shape, dtype=torch.int64)
            yield (
                f"{name}-{kind}",
                _nms_launch(scores, chosen, todo["boxes"], todo["keys"], order, todo["place"], 0.5, 100)[1],
            )
