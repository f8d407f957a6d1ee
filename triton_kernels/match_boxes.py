"""Matching anchors to ground truths by IoU, without the matrix.

A program has a block of anchors and walks over the ground truths of its image. For low-quality matches it also writes
each ground truth's best IoU in its block; the best of those is taken by torch, and a second kernel looks again at the
ground truths whose best lies in its block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run

_BLOCK = 256
# A fused multiply-add would round the areas differently from the definition.
_EXACT = {"num_warps": 4, "enable_fp_fusion": False}


@triton.jit
def _iou(tx1, ty1, tx2, ty2, ax1, ay1, ax2, ay2):
    """Each operation rounded once, in torchvision's order. A NaN coordinate makes its box's area NaN, and so the IoU;
    minimum and maximum may drop it."""
    width = tl.maximum(tl.minimum(tx2, ax2) - tl.maximum(tx1, ax1), 0.0)
    height = tl.maximum(tl.minimum(ty2, ay2) - tl.maximum(ty1, ay1), 0.0)
    intersection = width * height
    union = (tx2 - tx1) * (ty2 - ty1) + (ax2 - ax1) * (ay2 - ay1) - intersection
    # The plain operator on float32 is a faster, inexact division.
    return tl.div_rn(intersection, union) if intersection.dtype == tl.float32 else intersection / union


@triton.jit
def _truth(gt, image, t, image_stride, stride, coordinate_stride, dtype: tl.constexpr):
    at = gt + image * image_stride + tl.cast(t, tl.int64) * stride
    x1 = tl.load(at).to(dtype)
    y1 = tl.load(at + coordinate_stride).to(dtype)
    x2 = tl.load(at + 2 * coordinate_stride).to(dtype)
    y2 = tl.load(at + 3 * coordinate_stride).to(dtype)
    return x1, y1, x2, y2


@triton.jit
def _anchors(anchors, image, i, exists, image_stride, stride, coordinate_stride, dtype: tl.constexpr):
    """A box for each of i; NaN past the end, which meets nothing."""
    nan = float("nan")
    at = anchors + image * image_stride + i.to(tl.int64) * stride
    x1 = tl.load(at, mask=exists, other=nan).to(dtype)
    y1 = tl.load(at + coordinate_stride, mask=exists, other=nan).to(dtype)
    x2 = tl.load(at + 2 * coordinate_stride, mask=exists, other=nan).to(dtype)
    y2 = tl.load(at + 3 * coordinate_stride, mask=exists, other=nan).to(dtype)
    return x1, y1, x2, y2


@triton.jit
def _count(valid, image, truths):
    """How many of the image's rows are ground truths."""
    count = truths
    if valid is not None:
        # Cut as 64 bits, before it is narrowed.
        given = tl.load(valid + image).to(tl.int64)
        count = tl.minimum(tl.maximum(given, 0), tl.cast(truths, tl.int64)).to(tl.int32)
    return count


@triton.jit
def _label(best, matched, restored, high_bits, low_bits):
    high = high_bits.to(tl.int64).to(tl.float64, bitcast=True).to(best.dtype)
    low = low_bits.to(tl.int64).to(tl.float64, bitcast=True).to(best.dtype)
    none = tl.where(best >= low, -2, -1).to(tl.int64)
    return tl.where((best >= high) | restored, matched, none)


@triton.jit(do_not_specialize=["high_bits", "low_bits", "truths", "anchor_count", "blocks"])
def match_best_kernel(
    gt,  # [B, M, 4]
    anchors,  # [B or 1, N, 4]
    valid,  # [B] or None
    block_best,  # [B, blocks, M], written; None: no low-quality matches
    matches,  # [B, N] int64, written: labels, or without them the best ground truths
    ious,  # [B, N], written
    high_bits,
    low_bits,
    truths,
    anchor_count,
    blocks,
    gt_image_stride,
    gt_stride,
    gt_coordinate_stride,
    anchor_image_stride,
    anchor_stride,
    anchor_coordinate_stride,
    BLOCK: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    exists = i < anchor_count
    compute = ious.dtype.element_ty
    ax1, ay1, ax2, ay2 = _anchors(
        anchors, image, i, exists, anchor_image_stride, anchor_stride, anchor_coordinate_stride, compute
    )
    best = tl.zeros([BLOCK], compute)
    match = tl.zeros([BLOCK], tl.int32)
    count = _count(valid, image, truths)
    for t in range(0, count):
        tx1, ty1, tx2, ty2 = _truth(gt, image, t, gt_image_stride, gt_stride, gt_coordinate_stride, compute)
        iou = _iou(tx1, ty1, tx2, ty2, ax1, ay1, ax2, ay2)
        better = iou > best  # never for NaN
        best = tl.where(better, iou, best)
        match = tl.where(better, t, match)
        if block_best is not None:
            highest = tl.max(tl.where(iou > 0.0, iou, 0.0), axis=0)
            tl.store(block_best + (image * blocks + block) * truths + t, highest)
    out = image * anchor_count + i
    label = match.to(tl.int64)
    if block_best is None:
        label = _label(best, label, tl.zeros([BLOCK], tl.int1), high_bits, low_bits)
    tl.store(matches + out, tl.where(count > 0, label, -1), mask=exists)
    tl.store(ious + out, best, mask=exists)


@triton.jit(do_not_specialize=["high_bits", "low_bits", "truths", "anchor_count", "blocks"])
def match_restore_kernel(
    gt,  # [B, M, 4]
    anchors,  # [B or 1, N, 4]
    valid,  # [B] or None
    block_best,  # [B, blocks, M]
    truth_best,  # [B, M]
    matches,  # [B, N] int64: best ground truths, turned into labels
    ious,  # [B, N]
    high_bits,
    low_bits,
    truths,
    anchor_count,
    blocks,
    gt_image_stride,
    gt_stride,
    gt_coordinate_stride,
    anchor_image_stride,
    anchor_stride,
    anchor_coordinate_stride,
    BLOCK: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    exists = i < anchor_count
    compute = ious.dtype.element_ty
    ax1, ay1, ax2, ay2 = _anchors(
        anchors, image, i, exists, anchor_image_stride, anchor_stride, anchor_coordinate_stride, compute
    )
    restored = tl.zeros([BLOCK], tl.int1)
    count = _count(valid, image, truths)
    for t in range(0, count):
        wanted = tl.load(truth_best + image * truths + t)
        if tl.load(block_best + (image * blocks + block) * truths + t) == wanted:
            tx1, ty1, tx2, ty2 = _truth(gt, image, t, gt_image_stride, gt_stride, gt_coordinate_stride, compute)
            restored = restored | (_iou(tx1, ty1, tx2, ty2, ax1, ay1, ax2, ay2) == wanted)
    out = image * anchor_count + i
    matched = tl.load(matches + out, mask=exists, other=0)
    best = tl.load(ious + out, mask=exists, other=0.0)
    label = _label(best, matched, restored, high_bits, low_bits)
    tl.store(matches + out, tl.where(count > 0, label, -1), mask=exists)


def _launches(
    gt: torch.Tensor,
    anchors: torch.Tensor,
    thresholds: tuple[float, float],
    low_quality: bool,
    valid: torch.Tensor | None,
    matches: torch.Tensor,
    ious: torch.Tensor,
) -> tuple[Launch, Launch | None]:
    """What computes ``matches`` and ``ious [B, N]`` of ``gt [B, M, 4]``, ``anchors [B or 1, N, 4]``; the second launch
    lacks its ``truth_best [B, M]``, the largest of the first's ``block_best [B, blocks, M]`` over the blocks."""
    images, truths = gt.shape[:2]
    count = anchors.shape[1]
    blocks = triton.cdiv(count, _BLOCK)
    block_best = torch.empty((images, blocks, truths), dtype=ious.dtype, device=gt.device) if low_quality else None
    shared = {
        "gt": gt,
        "anchors": anchors,
        "valid": valid,
        "block_best": block_best,
        "matches": matches,
        "ious": ious,
        "high_bits": double_bits(thresholds[0]),
        "low_bits": double_bits(thresholds[1]),
        "truths": truths,
        "anchor_count": count,
        "blocks": blocks,
        "gt_image_stride": gt.stride(0),
        "gt_stride": gt.stride(1),
        "gt_coordinate_stride": gt.stride(2),
        "anchor_image_stride": 0 if anchors.shape[0] < images else anchors.stride(0),
        "anchor_stride": anchors.stride(1),
        "anchor_coordinate_stride": anchors.stride(2),
        "BLOCK": _BLOCK,
    }
    grid = (images * blocks,)
    best = Launch(match_best_kernel, grid, shared, _EXACT)
    return best, Launch(match_restore_kernel, grid, dict(shared), _EXACT) if low_quality else None


def match_boxes(
    gt: torch.Tensor,
    anchors: torch.Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool,
    valid: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ground truth of ``gt [M, 4]`` or ``[B, M, 4]`` that each anchor ``[N, 4]`` or ``[B, N, 4]`` belongs to."""
    compute = torch.promote_types(torch.promote_types(gt.dtype, anchors.dtype), torch.float32)
    shape = (*gt.shape[:-2], anchors.shape[-2])
    matches = torch.empty(shape, dtype=torch.int64, device=gt.device)
    ious = torch.empty(shape, dtype=compute, device=gt.device)
    gt, anchors = (t if t.dim() == 3 else t[None] for t in (gt, anchors))
    thresholds = (high_threshold, low_threshold)
    low_quality = allow_low_quality_matches and gt.shape[1] > 0 and matches.numel() > 0
    if valid is not None:
        valid = valid.contiguous()
    best, restore = _launches(gt, anchors, thresholds, low_quality, valid, matches, ious)
    run(gt.device, [best])
    if restore is not None:
        restore.arguments["truth_best"] = best.arguments["block_best"].amax(1)
        run(gt.device, [restore])
    return matches, ious


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        gt = torch.empty((2, 50, 4), dtype=dtype, device="meta")
        anchors = torch.empty((1, 4000, 4), dtype=dtype, device="meta")
        matches = torch.empty((2, 4000), dtype=torch.int64, device="meta")
        ious = torch.empty((2, 4000), dtype=torch.promote_types(dtype, torch.float32), device="meta")
        for valid in (None, torch.empty(2, dtype=torch.int64, device="meta")):
            name = f"{str(dtype)[6:]}{'' if valid is None else '-valid'}"
            for low_quality in (False, True):
                best, restore = _launches(gt, anchors, (0.7, 0.3), low_quality, valid, matches, ious)
                yield name, best
                if restore is not None:
                    restore.arguments["truth_best"] = torch.empty((2, 50), dtype=ious.dtype, device="meta")
                    yield name, restore
