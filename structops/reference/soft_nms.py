"""Soft non-maximum suppression by its definition."""

from __future__ import annotations

import torch

from structops.reference._exp import exp_of_negative

HARD, LINEAR, GAUSSIAN = range(3)


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor | None,
    iou_threshold: float,
    method: int,
    sigma: float,
    score_threshold: float,
    max_output: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take the best of ``boxes [N, 4]`` by ``scores [N]``, lower the scores of those that it overlaps, repeat.

    Indices ``[max_output]`` and the scores ``[max_output]`` that boxes were taken with, filled up with -1 and 0, and
    how many were taken ``[]``. Each operation is rounded once, in the order written here, in the type of the inputs
    (float32 for halves; the wider where they differ).
    """
    compute = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    x1, y1, x2, y2 = boxes.to(compute).unbind(1)
    scale = torch.tensor(max(-1 / sigma, -torch.finfo(compute).max), dtype=compute, device=boxes.device)
    area = (x2 - x1) * (y2 - y1)
    scores = scores.to(compute).clone()
    indices = torch.full((max_output,), -1, dtype=torch.int64, device=boxes.device)
    decayed = torch.zeros(max_output, dtype=compute, device=boxes.device)
    taken = 0
    while taken < max_output:
        left = (scores.double() > score_threshold).nonzero()[:, 0]  # compared in float64, as the IoU below
        if len(left) == 0:
            break
        best = left[(scores[left] == scores[left].max()).nonzero()[0, 0]]  # the lower index of equals
        indices[taken], decayed[taken] = best, scores[best]
        taken += 1
        width = (torch.minimum(x2[best], x2) - torch.maximum(x1[best], x1)).clamp(min=0)
        height = (torch.minimum(y2[best], y2) - torch.maximum(y1[best], y1)).clamp(min=0)
        intersection = width * height
        iou = intersection / (area[best] + area - intersection)
        if method == GAUSSIAN:
            weight, touched = exp_of_negative(iou * iou * scale), iou > 0
        else:
            weight = 1 - iou if method == LINEAR else torch.zeros_like(iou)
            touched = iou.double() > iou_threshold
        # A weight of 0 is the end of a score, infinite ones too.
        lower = torch.where(weight > 0, scores * weight, 0.0)
        scores = torch.where(touched if idxs is None else touched & (idxs == idxs[best]), lower, scores)
        scores[best] = 0
    return indices, decayed, torch.tensor(taken, device=boxes.device)
