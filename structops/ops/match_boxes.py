"""Matching anchors to ground truths by IoU: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require


def match_boxes(
    gt: torch.Tensor,
    anchors: torch.Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool = False,
    *,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ground truth that each anchor is trained on: the one of largest IoU, if that is large enough.

    What ``Matcher(high_threshold, low_threshold, allow_low_quality_matches)(box_iou(gt, anchors))`` of torchvision
    gives, number for number, without the M x N matrix: nothing of that size is ever in memory. The rule is that of
    Ren et al., "Faster R-CNN", 2015, section 3.1.2.

    Args:
        gt: ``[M, 4]`` ground truths (x1, y1, x2, y2) of one image, or ``[B, M, 4]`` of a batch, padded; any unit, that
            of the anchors; float16, bfloat16, float32 or float64. Halves are compared in float32.
        anchors: ``[N, 4]`` boxes (x1, y1, x2, y2), anchors or proposals, the same for every image; or ``[B, N, 4]``.
        high_threshold: an anchor is matched when its best IoU is at least this.
        low_threshold: and is background when its best IoU is less than this; at most ``high_threshold``. Both are
            compared in the type of the IoU, as torch compares a tensor with a number: 0.7 means ``float32(0.7)``.
        allow_low_quality_matches: also match, whatever the thresholds, every anchor that attains the best IoU that some
            ground truth has with any anchor, ties included; to its own best ground truth, which may be another. A
            ground truth that meets no anchor has a best IoU of 0, which all anchors that do not meet it attain: then
            they are all matched. That is torchvision's rule.
        valid: how many of an image's M rows are ground truths, any integer type, ``[B]``; for ``gt [B, M, 4]`` only. A
            count beyond M is taken as M, one below 0 as 0: looking would cost a host sync on a GPU.

    Returns:
        ``(matches, ious)``, each ``[N]`` for ``gt [M, 4]`` and ``[B, N]`` for ``gt [B, M, 4]``. ``matches``, int64: the
        index of the anchor's ground truth, the first of those that tie; -1 (``Matcher.BELOW_LOW_THRESHOLD``) for
        background, -2 (``Matcher.BETWEEN_THRESHOLDS``) for anchors to be left out. ``ious``: the anchor's best IoU, 0
        or more; float64 where a box is, else float32. Without a ground truth all are -1 and 0, where torchvision
        raises. An IoU that is no number (a NaN coordinate, two boxes without area) counts as 0, and is attained by no
        anchor; in torchvision it is a match.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, or thresholds in the wrong order.
    """
    _checks.tensor("match_boxes", "gt", gt, "; several images go in one [B, M, 4], padded, with valid=")
    _checks.tensor("match_boxes", "anchors", anchors)
    if valid is not None:
        _checks.tensor("match_boxes", "valid", valid)
    return _match_boxes(gt, anchors, high_threshold, low_threshold, allow_low_quality_matches, valid)


def _check(gt, anchors, high_threshold, low_threshold, allow_low_quality_matches, valid) -> None:
    op = "match_boxes"
    for name, shapes, boxes in (
        ("gt", "[M, 4] or [B, M, 4]", gt),
        ("anchors", "[N, 4] or [B, N, 4]", anchors),
    ):
        require(
            boxes.dim() in (2, 3) and boxes.shape[-1] == 4,
            lambda name=name, shapes=shapes, boxes=boxes: (  # type: ignore[misc]
                f"{op}: {name} must be {shapes} (x1, y1, x2, y2), got {list(boxes.shape)}"
            ),
        )
        _checks.floating(op, name, boxes)
    require(
        anchors.dim() == 2 or gt.dim() == 3,
        lambda: f"{op}: anchors [B, N, 4] go with gt [B, M, 4] of as many images, got gt {list(gt.shape)}",
    )
    if anchors.dim() == 3:
        require(
            anchors.shape[0] == gt.shape[0],
            lambda: (
                f"{op}: anchors [B, N, 4] go with gt [B, M, 4] of as many images, "
                f"got {anchors.shape[0]} for {gt.shape[0]}"
            ),
        )
    _checks.same_device(op, "anchors", anchors, "gt", gt)
    require(
        low_threshold <= high_threshold,
        lambda: f"{op}: low_threshold must be at most high_threshold, got {low_threshold} and {high_threshold}",
    )
    if valid is None:
        return
    require(
        gt.dim() == 3 and valid.dim() == 1,
        lambda: f"{op}: valid must be [B] and go with gt [B, M, 4], got {list(valid.shape)} for {list(gt.shape)}",
    )
    require(
        valid.shape[0] == gt.shape[0],
        lambda: f"{op}: valid must be [B] and go with gt [B, M, 4], got {list(valid.shape)} for {list(gt.shape)}",
    )
    _checks.integer(op, "valid", valid)
    _checks.same_device(op, "valid", valid, "gt", gt)


def _fake(gt, anchors, *_):
    shape = (*gt.shape[:-2], anchors.shape[-2])
    compute = torch.promote_types(torch.promote_types(gt.dtype, anchors.dtype), torch.float32)
    return gt.new_empty(shape, dtype=torch.int64), gt.new_empty(shape, dtype=compute)


_match_boxes = Op("match_boxes", module="match_boxes", check=_check, fake=_fake)
