"""Soft non-maximum suppression: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

import math
from typing import Literal

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops.nms import check_classes, check_nms

NAME = "soft_nms"
METHODS = ("hard", "linear", "gaussian")


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float = 0.3,
    *,
    idxs: torch.Tensor | None = None,
    method: Literal["linear", "gaussian", "hard"] = "linear",
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    max_output: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take the best box, lower the scores of those that overlap it instead of dropping them, repeat.

    Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", 2017, step by step and to the bit on
    every backend: in each step the box with the highest score of all that are left, then every other score times a
    weight that depends on its intersection over union with that box. The results have a fixed shape; nothing waits for
    the GPU. Not differentiable.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), any unit; float16, bfloat16, float32 or float64. Computed in float32, in
            float64 where boxes or scores are.
        scores: ``[N]``, any floating type.
        iou_threshold: of ``"linear"`` and ``"hard"``: an IoU that is not **greater** changes no score; 0 or more.
        idxs: ``[N]`` class (or image) of each box, any integer type, any values; boxes of different classes never
            interact. ``None``: one class.
        method: the weight: ``"linear"`` 1 - IoU, ``"gaussian"`` exp(-IoU^2 / sigma) at any IoU, ``"hard"`` 0, which is
            :func:`~structops.ops.nms` of the scores above the threshold.
        sigma: of the Gaussian; positive.
        score_threshold: a box whose score is not **greater** is out, before the first step and after any; 0 or more. A
            NaN is never greater.
        max_output: most boxes to take, over all classes; ``None``: N.

    Returns:
        ``(indices, scores, count)``: int64 ``[max_output]`` indices in the order in which boxes were taken, equal
        scores by the lower index; ``[max_output]`` the scores they were taken with, which fall, float32 (float64 where
        boxes or scores are); int64 ``[]`` how many were taken. After those, -1 and 0: use ``boxes[indices[:count]]``,
        since -1 as an index is the last box. A box with a NaN coordinate overlaps nothing.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, a negative threshold or ``max_output``, a ``sigma``
            that is not positive and finite, or an unknown ``method``.
    """
    require(method in METHODS, lambda: f"{NAME}: method must be one of {', '.join(METHODS)}, got {method!r}")
    for name, tensor in (("boxes", boxes), ("scores", scores)):
        _checks.tensor(NAME, name, tensor)
    if max_output is not None:
        _checks.count_of_results(NAME, "max_output", max_output)
    most = scores.shape[0] if max_output is None and scores.dim() == 1 else max_output or 0
    return _soft_nms(boxes, scores, idxs, iou_threshold, METHODS.index(method), sigma, score_threshold, most)


def _check(boxes, scores, idxs, iou_threshold, method, sigma, score_threshold, max_output) -> None:
    check_nms(boxes, scores, iou_threshold, NAME)
    if idxs is not None:
        check_classes(NAME, idxs, boxes)
    require(
        0 <= method < len(METHODS), lambda: f"{NAME}: method must be 0 (hard), 1 (linear) or 2 (gaussian), got {method}"
    )
    require(0 < sigma < math.inf, lambda: f"{NAME}: sigma must be positive and finite, got {sigma}")
    require(score_threshold >= 0, lambda: f"{NAME}: score_threshold must be 0 or more, got {score_threshold}")
    require(max_output >= 0, lambda: f"{NAME}: max_output must be 0 or more, got {max_output}")


def _fake(boxes, scores, idxs, iou_threshold, method, sigma, score_threshold, max_output):
    compute = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    indices = boxes.new_empty(max_output, dtype=torch.int64)
    return indices, boxes.new_empty(max_output, dtype=compute), boxes.new_empty((), dtype=torch.int64)


_soft_nms = Op(NAME, module=NAME, check=_check, fake=_fake)
