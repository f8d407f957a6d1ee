"""Matching anchors to ground truths by IoU, by its definition: the whole matrix, as torchvision's Matcher takes it."""

from __future__ import annotations

import torch

BELOW_LOW_THRESHOLD = -1
BETWEEN_THRESHOLDS = -2


def box_iou(gt: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """``[..., M, N]`` IoU of boxes ``[..., M, 4]`` and ``[..., N, 4]``, rounded as ``torchvision.ops.box_iou`` does."""
    a, b = gt[..., :, None, :], anchors[..., None, :, :]
    area_a, area_b = ((v[..., 2] - v[..., 0]) * (v[..., 3] - v[..., 1]) for v in (a, b))
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = size[..., 0] * size[..., 1]
    return intersection / (area_a + area_b - intersection)


def match_boxes(
    gt: torch.Tensor,
    anchors: torch.Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool,
    valid: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ground truth of ``gt [M, 4]`` or ``[B, M, 4]`` that each of ``anchors [N, 4]`` or ``[B, N, 4]`` belongs to.

    Returns ``(matches, ious)``, ``[N]`` or ``[B, N]``. Of the M rows of an image only the first ``valid [B]`` count.
    """
    compute = torch.promote_types(torch.promote_types(gt.dtype, anchors.dtype), torch.float32)
    shape = (*gt.shape[:-2], anchors.shape[-2])
    truths = gt.shape[-2]
    counts = torch.as_tensor(truths, device=gt.device) if valid is None else valid.long().clamp(0, truths)
    if truths == 0:
        matches = torch.full(shape, BELOW_LOW_THRESHOLD, dtype=torch.int64, device=gt.device)
        return matches, torch.zeros(shape, dtype=compute, device=gt.device)
    is_truth = (torch.arange(truths, device=gt.device) < counts[..., None])[..., None]  # [M, 1] or [B, M, 1]
    iou = box_iou(gt.to(compute), anchors.to(compute)).masked_fill(~is_truth, torch.nan)
    # NaN is no better than 0, for the anchor; no anchor attains it, for the ground truth.
    quality = iou.masked_fill(iou.isnan(), 0) + 0.0  # and no negative zero
    best, of = quality.max(-2)  # the first of equals
    # Compared in the tensor's type, as torch compares a tensor with a number.
    unmatched = torch.where(best < low_threshold, BELOW_LOW_THRESHOLD, BETWEEN_THRESHOLDS)
    keeps = best >= high_threshold
    if allow_low_quality_matches:
        attained = iou == quality.amax(-1, keepdim=True) if shape[-1] else iou == 0
        keeps = keeps | attained.any(-2)
    matches = torch.where(keeps, of, unmatched)
    return torch.where(counts[..., None] > 0, matches, BELOW_LOW_THRESHOLD), best
