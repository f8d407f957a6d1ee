"""Greedy non-maximum suppression of rotated boxes: public functions, fake kernels and checks. Not differentiable."""

from __future__ import annotations

import torch

from structops._backend import Op
from structops.ops.box_iou_rotated import check_boxes
from structops.ops.nms import check_classes, check_iou_threshold, check_scores


def nms_rotated(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression of rotated boxes: keep the best box, drop those that overlap it, repeat.

    detectron2's function, with :func:`box_iou_rotated`'s IoU.

    Args:
        boxes: ``[N, 5]`` (centre x, centre y, width, height, angle), any unit, and degrees, as for
            :func:`box_iou_rotated`; float16, bfloat16, float32 or float64.
        scores: ``[N]``, any floating type.
        iou_threshold: a box is dropped when its IoU with a kept one, rounded to float32 unless the boxes are float64,
            is **greater**; 0 or more.

    Returns:
        int64 indices of the kept boxes by falling score. Equal scores keep their order (the lower index first), on
        every backend; a NaN score sorts last. A box that is not finite, or has no area, overlaps nothing, and so is
        kept.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, or a negative threshold.
    """
    return _nms_rotated(boxes, scores, iou_threshold)


def batched_nms_rotated(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Non-maximum suppression of rotated boxes within each class: boxes of different ``idxs`` never interact.

    Exact: classes are compared as integers, with no offset added to the centres.

    Args:
        boxes: ``[N, 5]`` (centre x, centre y, width, height, angle), as for :func:`nms_rotated`.
        scores: ``[N]``, any floating type.
        idxs: ``[N]`` class of each box, any integer type, any values.
        iou_threshold: as for :func:`nms_rotated`.

    Returns:
        int64 indices of the kept boxes of all classes by falling score, ties by the lower index.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, or a negative threshold.
    """
    return _batched_nms_rotated(boxes, scores, idxs, iou_threshold)


def _check(boxes, scores, iou_threshold, op: str = "nms_rotated") -> None:
    check_boxes(op, "boxes", boxes)
    check_scores(op, scores, boxes)
    check_iou_threshold(op, iou_threshold)


def _check_batched(boxes, scores, idxs, iou_threshold) -> None:
    _check(boxes, scores, iou_threshold, "batched_nms_rotated")
    check_classes("batched_nms_rotated", idxs, boxes)


def _fake(boxes, *_):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


_nms_rotated = Op("nms_rotated", module="nms_rotated", check=_check, fake=_fake)
_batched_nms_rotated = Op("batched_nms_rotated", module="nms_rotated", check=_check_batched, fake=_fake)
