"""Soft non-maximum suppression: one program per class takes box after box.

A step is one pass over the class: it lowers every score by the overlap with the box just taken, and finds the best of
them for the next step. Places are boxes by (class, index), so that the first of equal scores has the lowest index.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._exp import _exp_of_negative
from structops.triton_kernels._launch import Launch, double_bits, round_down, run
from structops.triton_kernels._score_order import keys_launch
from structops.triton_kernels.nms import compute_dtype

_BLOCK = 1024


@triton.jit
def _double(bits, like):
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(like)


@triton.jit
def _best(score, place, best_score, best):
    """The better of the best so far and the best of a block, the first of equals."""
    score_here = tl.max(score, axis=0)
    here = tl.min(tl.where(score == score_here, place, 2147483647), axis=0)
    better = score_here > best_score
    return tl.where(better, score_here, best_score), tl.where(better, here, best)


@triton.jit(do_not_specialize=["n", "most", "iou_bits", "scale_bits", "score_bits"])
def soft_nms_kernel(
    boxes,  # [N, 4] (x1, y1, x2, y2) by place, float32 or float64
    scores,  # [N] by place, lowered
    order,  # [N] int64: box of each place, or None: places are boxes
    classes,  # [N] int64 by place, or None
    result,  # [N] by box, 0; written: the score a box was taken with
    n,
    most,
    iou_bits,
    scale_bits,
    score_bits,
    METHOD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = scores.dtype.element_ty
    begin = tl.program_id(0)
    end = tl.cast(n, tl.int32)
    mine = True
    if classes is not None:
        own = tl.load(classes + begin)
        mine = (begin == 0) | (tl.load(classes + tl.maximum(begin - 1, 0)) != own)
        low = begin
        high = tl.where(mine, end, begin)
        while low < high:  # the first place of another class
            middle = low + (high - low) // 2
            same = tl.load(classes + middle) == own
            low = tl.where(same, middle + 1, low)
            high = tl.where(same, high, middle)
        end = low
    iou_limit = _double(iou_bits, dtype)
    scale = _double(scale_bits, dtype)
    score_limit = _double(score_bits, dtype)
    lane = tl.arange(0, BLOCK)
    best_score = score_limit
    best = begin
    for first in range(begin, end, BLOCK):
        place = first + lane
        score = tl.load(scores + place, mask=place < end, other=0.0)
        best_score, best = _best(tl.where(score > score_limit, score, 0.0), place, best_score, best)
    taken = tl.cast(n, tl.int32) * 0
    while (best_score > score_limit) & (taken < most):
        box = best
        if order is not None:
            box = tl.load(order + best)
        tl.store(result + box, best_score)
        ax1 = tl.load(boxes + best * 4)
        ay1 = tl.load(boxes + best * 4 + 1)
        ax2 = tl.load(boxes + best * 4 + 2)
        ay2 = tl.load(boxes + best * 4 + 3)
        gone = best
        best_score = score_limit
        for first in range(begin, end, BLOCK):
            place = first + lane
            score = tl.load(scores + place, mask=place < end, other=0.0)
            alive = (score > score_limit) & (place != gone)
            bx1 = tl.load(boxes + place * 4, mask=alive, other=0.0)
            by1 = tl.load(boxes + place * 4 + 1, mask=alive, other=0.0)
            bx2 = tl.load(boxes + place * 4 + 2, mask=alive, other=0.0)
            by2 = tl.load(boxes + place * 4 + 3, mask=alive, other=0.0)
            width = tl.maximum(tl.minimum(ax2, bx2) - tl.maximum(ax1, bx1), 0.0)
            height = tl.maximum(tl.minimum(ay2, by2) - tl.maximum(ay1, by1), 0.0)
            intersection = width * height
            union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
            # The plain operator on float32 is a faster, inexact division.
            iou = tl.div_rn(intersection, union) if dtype == tl.float32 else intersection / union
            touched = (intersection > 0.0) & (iou > iou_limit)
            weight = 1.0 - iou
            if METHOD == 0:
                weight = tl.zeros([BLOCK], dtype)
            if METHOD == 2:
                weight = _exp_of_negative(iou * iou * scale)
                touched = (intersection > 0.0) & (iou > 0.0)
            score = tl.where(touched, tl.where(weight > 0.0, score * weight, 0.0), score)
            score = tl.where(alive, score, 0.0)
            tl.store(scores + place, score, mask=place < end)
            best_score, best = _best(tl.where(score > score_limit, score, 0.0), place, best_score, best)
        tl.debug_barrier()  # whichever thread loads a score in the next step, it is the one stored in this
        taken += 1


def _decay_launch(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    order: torch.Tensor | None,
    classes: torch.Tensor | None,
    rule: tuple[float, int, float, float],
    most: int,
) -> tuple[torch.Tensor, Launch]:
    iou_threshold, method, sigma, score_threshold = rule
    n, dtype = scores.shape[0], scores.dtype
    result = torch.zeros(n, dtype=dtype, device=scores.device)
    arguments = {
        "boxes": boxes,
        "scores": scores,
        "order": order,
        "classes": classes,
        "result": result,
        "n": n,
        "most": most,
        "iou_bits": double_bits(round_down(iou_threshold, dtype)),
        "scale_bits": double_bits(max(-1 / sigma, -torch.finfo(dtype).max)),
        "score_bits": double_bits(round_down(score_threshold, dtype)),
        "METHOD": method,
        "BLOCK": _BLOCK,
    }
    grid = (n if classes is not None else min(n, 1),)
    return result, Launch(soft_nms_kernel, grid, arguments, {"num_warps": 8, "enable_fp_fusion": False})


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor | None,
    iou_threshold: float,
    method: int,
    sigma: float,
    score_threshold: float,
    max_output: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices ``[max_output]`` of the boxes ``[N, 4]`` taken, the scores they were taken with, and their number."""
    dtype = compute_dtype(boxes, scores)
    order = classes = None
    if idxs is not None:
        classes, order = torch.sort(idxs.long(), stable=True)
    by_place = (boxes, scores) if order is None else (boxes[order], scores[order])
    b, s = by_place[0].to(dtype).contiguous(), by_place[1].to(dtype).clone(memory_format=torch.contiguous_format)
    rule = iou_threshold, method, sigma, score_threshold
    result, launch = _decay_launch(b, s, order, classes, rule, max_output)
    run(boxes.device, [launch])
    keys, launch = keys_launch(result[None])
    run(boxes.device, [launch])
    best = torch.sort(keys[0], descending=True, stable=True).indices[:max_output]
    decayed = result[best]
    indices = torch.where(decayed > 0, best, -1)
    padding = (0, max_output - best.shape[0])
    count = (result > 0).sum().clamp(max=max_output)
    return torch.nn.functional.pad(indices, padding, value=-1), torch.nn.functional.pad(decayed, padding), count


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float32, torch.float64):
        boxes = torch.empty((1000, 4), dtype=dtype, device="meta")
        scores = torch.empty(1000, dtype=dtype, device="meta")
        order = torch.empty(1000, dtype=torch.int64, device="meta")
        for method in range(3):
            # One name has the type that tests take through every target.
            name = f"{str(dtype)[6:]}{'-as-bfloat16' if dtype == torch.float32 else ''}-{method}"
            yield name, _decay_launch(boxes, scores, None, None, (0.3, method, 0.5, 0.001), 1000)[1]
            yield f"{name}-classes", _decay_launch(boxes, scores, order, order, (0.3, method, 0.5, 0.001), 1000)[1]
