"""Matrix NMS: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

import math
from typing import Literal

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops.nms import check_classes

NAME = "matrix_nms"
KERNELS = ("linear", "gaussian")


def matrix_nms(
    boxes: torch.Tensor | None,
    scores: torch.Tensor,
    *,
    idxs: torch.Tensor | None = None,
    kernel: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 2.0,
    ious: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lower every score at once by the overlaps with better ones: soft suppression without its steps.

    Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation", 2020, equation 5: score j is multiplied by the least
    of ``f(iou(i, j)) / f(worst overlap of i with a better one)`` over all better i of its class. Memory is linear in N
    (unless ``ious`` are given), time quadratic where boxes overlap. To the bit the same on every backend. Not
    differentiable.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2), any unit; float16, bfloat16, float32 or float64. ``None`` with ``ious``.
        scores: ``[N]``, any floating type. Better is a higher score, of equal ones the lower index; NaN is the worst.
        idxs: ``[N]`` class (or image) of each box, any integer type, any values; boxes of different classes never
            interact. ``None``: one class.
        kernel: f: ``"gaussian"`` exp(-sigma IoU^2), ``"linear"`` 1 - IoU.
        sigma: of the Gaussian, as SOLOv2 has it: larger lowers more; positive and finite.
        ious: ``[N, N]`` overlaps, of masks for example, in the place of the boxes; symmetric. What is not positive (or
            NaN) is no overlap, more than 1 counts as 1.

    Returns:
        ``[N]`` lowered scores in the order of the boxes, float32 (float64 where any argument is). A box with a NaN
        coordinate overlaps nothing and keeps its score.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, ``boxes`` and ``ious`` both or neither, an unknown
            ``kernel``, or a ``sigma`` that is not positive and finite.
    """
    require(kernel in KERNELS, lambda: f"{NAME}: kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
    return _matrix_nms(scores, boxes, ious, idxs, KERNELS.index(kernel), sigma)


def _check(scores, boxes, ious, idxs, kernel, sigma) -> None:
    require(scores.dim() == 1, lambda: f"{NAME}: scores must be [N] (1 dimension), got {scores.dim()} dimensions")
    _checks.floating(NAME, "scores", scores)
    require((boxes is None) != (ious is None), lambda: f"{NAME}: give boxes or ious, one of the two")
    n = scores.shape[0]
    if boxes is not None:
        require(
            boxes.dim() == 2 and boxes.shape[0] == n and boxes.shape[1] == 4,
            lambda: f"{NAME}: boxes must be [N, 4] (x1, y1, x2, y2), one a score, got {list(boxes.shape)} for {n}",
        )
    else:
        require(
            ious.dim() == 2 and ious.shape[0] == n and ious.shape[1] == n,
            lambda: f"{NAME}: ious must be [N, N], a row and a column a score, got {list(ious.shape)} for {n}",
        )
    name, given = ("ious", ious) if boxes is None else ("boxes", boxes)
    _checks.floating(NAME, name, given)
    _checks.same_device(NAME, name, given, "scores", scores)
    if idxs is not None:
        check_classes(NAME, idxs, scores, "score")
    require(0 <= kernel < len(KERNELS), lambda: f"{NAME}: kernel must be 0 (linear) or 1 (gaussian), got {kernel}")
    require(0 < sigma < math.inf, lambda: f"{NAME}: sigma must be positive and finite, got {sigma}")


def _fake(scores, boxes, ious, idxs, kernel, sigma):
    given = boxes if ious is None else ious
    wide = torch.float64 in (scores.dtype, given.dtype)
    return scores.new_empty(scores.shape[0], dtype=torch.float64 if wide else torch.float32)


_matrix_nms = Op(NAME, module=NAME, check=_check, fake=_fake)
