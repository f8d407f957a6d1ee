"""Non-maximum suppression along time: public function and checks, over the ops of :mod:`structops.ops.nms`."""

from __future__ import annotations

import torch

from structops import _checks
from structops._checks import require
from structops.ops.nms import batched_nms, check_classes, check_iou_threshold, nms

NAME = "nms_1d"


def nms_1d(
    segments: torch.Tensor, scores: torch.Tensor, iou_threshold: float, *, idxs: torch.Tensor | None = None
) -> torch.Tensor:
    """Greedy non-maximum suppression of segments of a sequence: keep the best, drop those that overlap it, repeat.

    For proposals in video or sound, as in Lin et al., "BSN: Boundary Sensitive Network for Temporal Action Proposal
    Generation", 2018. Exact: a segment is a box one unit high, which changes no intersection and no length. Not
    differentiable.

    Args:
        segments: ``[N, 2]`` (start, end), any unit (frames, seconds); float16, bfloat16, float32 or float64. Halves are
            compared in float32.
        scores: ``[N]``, any floating type.
        iou_threshold: a segment is dropped when its intersection over union with a kept one is **greater**; 0 or more.
        idxs: ``[N]`` class (or video) of each segment, any integer type, any values; segments of different classes
            never interact. ``None``: one class.

    Returns:
        int64 indices of the kept segments by falling score, ties by the lower index; NaN scores sort last. A segment
        with a NaN end overlaps nothing, and so is kept.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, or a negative threshold.
    """
    for name, tensor in (("segments", segments), ("scores", scores)):
        _checks.tensor(NAME, name, tensor)
    if idxs is not None:
        _checks.tensor(NAME, "idxs", idxs)
    _check(segments, scores, iou_threshold, idxs)
    boxes = segments.new_zeros(segments.shape[0], 4)  # not by torch.stack, which CPU autocast refuses halves
    boxes[:, ::2] = segments
    boxes[:, 3] = 1
    return nms(boxes, scores, iou_threshold) if idxs is None else batched_nms(boxes, scores, idxs, iou_threshold)


def _check(segments, scores, iou_threshold, idxs) -> None:
    require(
        segments.dim() == 2 and segments.shape[1] == 2,
        lambda: f"{NAME}: segments must be [N, 2] (start, end), got {list(segments.shape)}",
    )
    _checks.floating(NAME, "segments", segments)
    require(
        scores.dim() == 1 and scores.shape[0] == segments.shape[0],
        lambda: f"{NAME}: scores must be [N], one entry a segment, got {list(scores.shape)} for {segments.shape[0]}",
    )
    _checks.floating(NAME, "scores", scores)
    _checks.same_device(NAME, "scores", scores, "segments", segments)
    if idxs is not None:
        check_classes(NAME, idxs, segments, "segment")
    check_iou_threshold(NAME, iou_threshold)
