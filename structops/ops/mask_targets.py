"""Targets of a mask head: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops._boxes import MAX_POOLED, output_pair

NAME = "mask_targets"


def mask_targets(
    gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, size: int | Sequence[int]
) -> torch.Tensor:
    """What a mask head is trained to say of each box: the ground truth's mask inside of it, at the head's size.

    The results of ``torchvision.models.detection.roi_heads.project_masks_on_boxes`` (He et al., "Mask R-CNN", 2017,
    section 3.1): RoI Align with one bin a pixel, ``aligned=False`` and as many samples as a bin is long. Bitmaps are
    read as they are stored, without a floating copy of them. Not differentiable.

    Args:
        gt_masks: ``[G, H, W]``, a bitmap of the image for each object; bool, uint8, float16, bfloat16, float32 or
            float64.
        boxes: ``[K, 4]`` (x1, y1, x2, y2) in image pixels, any floating type.
        matched: ``[K]`` the object of each box, an index of ``gt_masks``; any integer type.
        size: of a target, (height, width) or one number for both; 1 to 32768.

    Returns:
        ``[K, height, width]`` float32 (float64 where any argument is), shares of covered area where bitmaps hold 0 and
        1. A box with a coordinate that is not finite gives NaN.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, a ``size`` out of range, or (on a CPU) an index out of
            range; on a GPU, where looking would cost a host sync, such a box gives NaN.
    """
    rows, columns = output_pair(NAME, size)
    return _mask_targets(gt_masks, boxes, matched, rows, columns)


def check_target_boxes(op: str, boxes, matched, rows, columns, count) -> None:
    """Raise unless boxes are ``[K, 4]`` and matched ``[K]``, on a CPU indices of ``count`` objects."""
    require(
        boxes.dim() == 2 and boxes.shape[1] == 4,
        lambda: f"{op}: boxes must be [K, 4] (x1, y1, x2, y2), got {list(boxes.shape)}",
    )
    _checks.floating(op, "boxes", boxes)
    require(
        matched.dim() == 1 and matched.shape[0] == boxes.shape[0],
        lambda: f"{op}: matched must be [K], an index for each of the {boxes.shape[0]} boxes, got {matched.shape}",
    )
    _checks.integer(op, "matched", matched)
    _checks.same_device(op, "matched", matched, "boxes", boxes)
    require(
        0 < rows <= MAX_POOLED and 0 < columns <= MAX_POOLED,
        lambda: f"{op}: size must be 1 to {MAX_POOLED}, got ({rows}, {columns})",
    )
    if matched.device.type == "cpu" and not torch.compiler.is_compiling() and type(matched) is torch.Tensor:
        bad = (matched < 0) | (matched >= count)
        require(
            not bool(bad.any()),
            lambda: f"{op}: matched[{int(bad.nonzero()[0])}] is {matched[bad][0].item()}, but must be in [0, {count})",
        )


def _check(gt_masks, boxes, matched, rows, columns) -> None:
    require(
        gt_masks.dim() == 3,
        lambda: f"{NAME}: gt_masks must be [G, H, W] (3 dimensions), got {gt_masks.dim()} dimensions",
    )
    require(
        gt_masks.dtype in (torch.bool, torch.uint8, *_checks.FLOATING),
        lambda: f"{NAME}: gt_masks must be bool, uint8 or floating, got {gt_masks.dtype}",
    )
    _checks.same_device(NAME, "boxes", boxes, "gt_masks", gt_masks)
    check_target_boxes(NAME, boxes, matched, rows, columns, gt_masks.shape[0])


def _fake(gt_masks, boxes, matched, rows, columns):
    wide = torch.float64 in (gt_masks.dtype, boxes.dtype)
    return boxes.new_empty((boxes.shape[0], rows, columns), dtype=torch.float64 if wide else torch.float32)


_mask_targets = Op(NAME, module=NAME, check=_check, fake=_fake)
