"""Non-maximum suppression of a batch with results of fixed shape: public function, fake kernel and checks."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops.nms import check_iou_threshold

NAME = "nms_padded"


def nms_padded(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    max_output: int,
    *,
    idxs: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    score_threshold: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy non-maximum suppression of a batch of images at once, with results of a fixed shape.

    Of each image, :func:`~structops.ops.nms` (with ``idxs`` :func:`~structops.ops.batched_nms`) of the boxes that take
    part, cut off after ``max_output``. Nothing depends on the data but the values, and nothing waits for the GPU: the
    op can be captured in a CUDA graph, and exported without data-dependent shapes. Not differentiable.

    Args:
        boxes: ``[B, N, 4]`` (x1, y1, x2, y2), any unit; float16, bfloat16, float32 or float64. Halves are compared in
            float32.
        scores: ``[B, N]``, any floating type.
        iou_threshold: a box is dropped when its intersection over union with a kept one is **greater**; 0 or more.
        max_output: most boxes that are kept of an image, over all its classes; 0 or more.
        idxs: ``[B, N]`` class of each box, any integer type, any values; boxes of different classes never interact.
            ``None``: one class.
        valid: which boxes take part at all: ``[B]`` integers, the first so many of each image (negative is none, more
            than N all), or ``[B, N]`` bool. What the other boxes hold is never looked at. ``None``: all.
        score_threshold: only boxes that score **more** (as float64) take part, and none with a NaN score. ``None``:
            all, with NaN sorted last.

    Returns:
        ``(indices, counts)``: int64 ``[B, max_output]`` indices into the N boxes of each image by falling score, ties
        by the lower index, filled up with -1; int64 ``[B]`` how many of them are indices. Use the first ``counts``
        only, ``boxes[i, indices[i, : counts[i]]]``, or a mask: -1 as an index is the last box.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, a negative ``iou_threshold`` or ``max_output``.
    """
    _checks.tensor(NAME, "boxes", boxes)
    _checks.tensor(NAME, "scores", scores)
    for name, optional in (("idxs", idxs), ("valid", valid)):
        if optional is not None:
            _checks.tensor(NAME, name, optional)
    _checks.count_of_results(NAME, "max_output", max_output)
    if score_threshold is not None:
        score_threshold = _checks.number(NAME, "score_threshold", score_threshold)
    return _nms_padded(boxes, scores, idxs, valid, iou_threshold, max_output, score_threshold)


def _check_each_box(name: str, tensor, boxes) -> None:
    require(
        tensor.dim() == 2 and tensor.shape[0] == boxes.shape[0] and tensor.shape[1] == boxes.shape[1],
        lambda: (
            f"{NAME}: {name} must be [B, N], one entry a box of boxes {list(boxes.shape)}, got {list(tensor.shape)}"
        ),
    )
    _checks.same_device(NAME, name, tensor, "boxes", boxes)


def _check_valid(valid, boxes) -> None:
    if valid.dtype == torch.bool:
        _check_each_box("valid", valid, boxes)
        return
    require(
        valid.dtype in _checks.INTEGER,
        lambda: f"{NAME}: valid must be [B] of integers or [B, N] of bool, got {valid.dtype}",
    )
    require(
        valid.dim() == 1 and valid.shape[0] == boxes.shape[0],
        lambda: f"{NAME}: valid, of integers, must be [B], one count an image, got {list(valid.shape)}",
    )
    _checks.same_device(NAME, "valid", valid, "boxes", boxes)


def _check(boxes, scores, idxs, valid, iou_threshold, max_output, score_threshold) -> None:
    require(
        boxes.dim() == 3 and boxes.shape[2] == 4,
        lambda: f"{NAME}: boxes must be [B, N, 4] (x1, y1, x2, y2), got {list(boxes.shape)}",
    )
    _checks.floating(NAME, "boxes", boxes)
    _checks.floating(NAME, "scores", scores)
    _check_each_box("scores", scores, boxes)
    if idxs is not None:
        _checks.integer(NAME, "idxs", idxs)
        _check_each_box("idxs", idxs, boxes)
    if valid is not None:
        _check_valid(valid, boxes)
    check_iou_threshold(NAME, iou_threshold)
    require(max_output >= 0, lambda: f"{NAME}: max_output must be 0 or more, got {max_output}")


def _fake(boxes, scores, idxs, valid, iou_threshold, max_output, score_threshold):
    images = boxes.shape[0]
    return boxes.new_empty((images, max_output), dtype=torch.int64), boxes.new_empty(images, dtype=torch.int64)


_nms_padded = Op("nms_padded", module="nms_padded", check=_check, fake=_fake)
