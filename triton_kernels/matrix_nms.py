"""Matrix NMS: every box against the better ones of its class, twice.

Places are boxes by (class, score). First each box's worst overlap with a better one, then the least of what the better
ones say with theirs: two launches of one kernel, each box a lane that walks along its better ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._exp import _exp_of_negative
from structops.triton_kernels._launch import Launch, double_bits, run
from structops.triton_kernels._score_order import keys_launch
from structops.triton_kernels.nms import compute_dtype

_BLOCK = 128


@triton.jit(do_not_specialize=["n", "sigma_bits"])
def matrix_nms_kernel(
    boxes,  # [N, 4] (x1, y1, x2, y2) by place, or None
    ious,  # [N, N] by box, row: the box that is lowered; None with boxes
    order,  # [N] int64: box of each place
    first,  # [N] int64: place where each one's class begins, or None: 0
    scores,  # [N] by box
    worst,  # [N] by place: written by the first launch, read by the second
    lowered,  # [N] by box, written by the second
    n,
    sigma_bits,
    GAUSSIAN: tl.constexpr,
    WEIGH: tl.constexpr,  # the second launch
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = scores.dtype.element_ty
    start = tl.program_id(0) * BLOCK
    place = start + tl.arange(0, BLOCK)
    mask = place < n
    mine = tl.load(order + place, mask=mask, other=0)
    begin = tl.zeros([BLOCK], tl.int64)
    lowest = tl.cast(n, tl.int32) * 0
    if first is not None:
        begin = tl.load(first + place, mask=mask, other=0)
        lowest = tl.load(first + start).to(tl.int32)
    one = tl.full([BLOCK], 1.0, dtype)
    found = tl.zeros([BLOCK], dtype)  # the worst overlap, or the least exponent
    if WEIGH and not GAUSSIAN:
        found = one  # or the least weight
    if boxes is not None:
        bx1 = tl.load(boxes + place * 4, mask=mask, other=0.0)
        by1 = tl.load(boxes + place * 4 + 1, mask=mask, other=0.0)
        bx2 = tl.load(boxes + place * 4 + 2, mask=mask, other=0.0)
        by2 = tl.load(boxes + place * 4 + 3, mask=mask, other=0.0)
    for i in range(lowest, tl.minimum(start + BLOCK, n)):
        if boxes is not None:
            ax1 = tl.load(boxes + i * 4)
            ay1 = tl.load(boxes + i * 4 + 1)
            ax2 = tl.load(boxes + i * 4 + 2)
            ay2 = tl.load(boxes + i * 4 + 3)
            width = tl.maximum(tl.minimum(ax2, bx2) - tl.maximum(ax1, bx1), 0.0)
            height = tl.maximum(tl.minimum(ay2, by2) - tl.maximum(ay1, by1), 0.0)
            intersection = width * height
            union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
            # The plain operator on float32 is a faster, inexact division.
            iou = tl.div_rn(intersection, union) if dtype == tl.float32 else intersection / union
            iou = tl.where((intersection > 0.0) & (iou > 0.0), iou, 0.0)
        else:
            iou = tl.load(ious + mine * n + tl.load(order + i), mask=mask, other=0.0)
            iou = tl.where(iou > 0.0, iou, 0.0)
        iou = tl.where((i < place) & (i >= begin), tl.where(iou < 1.0, iou, 1.0), 0.0)
        if not WEIGH:
            found = tl.where(iou > found, iou, found)
        else:
            theirs = tl.load(worst + i)
            if GAUSSIAN:
                said = theirs * theirs - iou * iou
            else:
                # One that coincides with a better one has no say.
                left = 1.0 - iou
                theirs_left = one - theirs
                said = tl.div_rn(left, theirs_left) if dtype == tl.float32 else left / theirs_left
                said = tl.where(theirs < 1.0, said, 1.0)
            found = tl.where(said < found, said, found)
    if WEIGH:
        if GAUSSIAN:
            sigma = sigma_bits.to(tl.int64).to(tl.float64, bitcast=True).to(dtype)
            found = _exp_of_negative(found * sigma)
        score = tl.load(scores + mine, mask=mask, other=0.0)
        tl.store(lowered + mine, score * found, mask=mask)
    else:
        tl.store(worst + place, found, mask=mask)


def _launches(
    boxes: torch.Tensor | None,
    ious: torch.Tensor | None,
    order: torch.Tensor,
    first: torch.Tensor | None,
    scores: torch.Tensor,
    kernel: int,
    sigma: float,
) -> tuple[torch.Tensor, list[Launch]]:
    n = scores.shape[0]
    lowered = torch.empty_like(scores)
    arguments = {
        "boxes": boxes,
        "ious": ious,
        "order": order,
        "first": first,
        "scores": scores,
        "worst": torch.empty_like(scores),
        "lowered": lowered,
        "n": n,
        "sigma_bits": double_bits(min(sigma, torch.finfo(scores.dtype).max)),
        "GAUSSIAN": kernel == 1,
        "BLOCK": _BLOCK,
    }
    options = {"num_warps": 4, "enable_fp_fusion": False}
    grid = (triton.cdiv(n, _BLOCK),)
    return lowered, [Launch(matrix_nms_kernel, grid, {**arguments, "WEIGH": w}, options) for w in (False, True)]


def matrix_nms(
    scores: torch.Tensor,
    boxes: torch.Tensor | None,
    ious: torch.Tensor | None,
    idxs: torch.Tensor | None,
    kernel: int,
    sigma: float,
) -> torch.Tensor:
    """Lowered ``scores [N]`` of ``boxes [N, 4]``, or of overlaps ``ious [N, N]``."""
    given = boxes if ious is None else ious
    dtype = compute_dtype(given, scores)
    s = scores.to(dtype).contiguous()
    keys, launch = keys_launch(s[None])
    run(scores.device, [launch])
    order = torch.sort(keys[0], descending=True, stable=True).indices
    first = None
    if idxs is not None:
        classes, by_class = torch.sort(idxs.long()[order], stable=True)
        order = order[by_class]
        first = torch.searchsorted(classes, classes)
    b = None if boxes is None else boxes[order].to(dtype).contiguous()
    o = None if ious is None else ious.to(dtype).contiguous()
    lowered, launches = _launches(b, o, order, first, s, kernel, sigma)
    run(scores.device, launches)
    return lowered


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float32, torch.float64):
        n = 1000
        scores = torch.empty(n, dtype=dtype, device="meta")
        order = torch.empty(n, dtype=torch.int64, device="meta")
        boxes, ious = (torch.empty((n, width), dtype=dtype, device="meta") for width in (4, n))
        # One name has the type that tests take through every target.
        name = f"{str(dtype)[6:]}{'-as-bfloat16' if dtype == torch.float32 else ''}"
        for kernel in range(2):
            variants = {"": (boxes, None, None), "-classes": (boxes, None, order), "-ious": (None, ious, order)}
            for suffix, (b, o, first) in variants.items():
                for launch in _launches(b, o, order, first, scores, kernel, 2.0)[1]:
                    yield f"{name}-{kernel}{suffix}", launch
