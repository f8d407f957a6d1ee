"""Greedy non-maximum suppression: public functions, fake kernels and checks. Not differentiable."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression: keep the best box, drop those that overlap it, repeat.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), any unit; float16, bfloat16, float32 or float64. Halves are compared in
            float32.
        scores: ``[N]``, any floating type.
        iou_threshold: a box is dropped when its intersection over union with a kept one is **greater**; 0 or more.

    Returns:
        int64 indices of the kept boxes by falling score. Equal scores keep their order (the lower index first), on
        every backend; a NaN score sorts last. A box with a NaN coordinate overlaps nothing, and so is kept.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, or a negative threshold.
    """
    return _nms(boxes, scores, iou_threshold)


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Non-maximum suppression within each class (or image, or level): boxes of different ``idxs`` never interact.

    Exact: classes are compared as integers, with no offset added to the coordinates.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), as for :func:`nms`.
        scores: ``[N]``, any floating type.
        idxs: ``[N]`` class of each box, any integer type, any values.
        iou_threshold: as for :func:`nms`.

    Returns:
        int64 indices of the kept boxes of all classes by falling score, ties by the lower index.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, or a negative threshold.
    """
    return _batched_nms(boxes, scores, idxs, iou_threshold)


def check_nms(boxes, scores, iou_threshold, op: str = "nms") -> None:
    require(
        boxes.dim() == 2 and boxes.shape[1] == 4,
        lambda: f"{op}: boxes must be [N, 4] (x1, y1, x2, y2), got {list(boxes.shape)}",
    )
    _checks.floating(op, "boxes", boxes)
    check_scores(op, scores, boxes)
    check_iou_threshold(op, iou_threshold)


def check_scores(op: str, scores, boxes) -> None:
    require(scores.dim() == 1, lambda: f"{op}: scores must be [N] (1 dimension), got {scores.dim()} dimensions")
    _checks.floating(op, "scores", scores)
    require(
        scores.shape[0] == boxes.shape[0],
        lambda: f"{op}: scores must have one entry a box, got {scores.shape[0]} for {boxes.shape[0]} boxes",
    )
    _checks.same_device(op, "scores", scores, "boxes", boxes)


def check_iou_threshold(op: str, iou_threshold: float) -> None:
    require(iou_threshold >= 0, lambda: f"{op}: iou_threshold must be 0 or more, got {iou_threshold}")


def check_classes(op: str, idxs, boxes, each: str = "box") -> None:
    require(
        idxs.dim() == 1,
        lambda: f"{op}: idxs must be [N] (1 dimension), got {idxs.dim()} dimensions",
    )
    require(
        idxs.shape[0] == boxes.shape[0],
        lambda: f"{op}: idxs must have one entry a {each}, got {idxs.shape[0]} for {boxes.shape[0]}",
    )
    _checks.integer(op, "idxs", idxs)
    _checks.same_device(op, "idxs", idxs, {"box": "boxes"}.get(each, f"{each}s"), boxes)


def _check_batched(boxes, scores, idxs, iou_threshold) -> None:
    check_nms(boxes, scores, iou_threshold, "batched_nms")
    check_classes("batched_nms", idxs, boxes)


def _fake(boxes, *_):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


_nms = Op("nms", module="nms", check=check_nms, fake=_fake)
_batched_nms = Op("batched_nms", module="nms", check=_check_batched, fake=_fake)
