"""Matrix NMS by its definition."""

from __future__ import annotations

import torch

from structops.reference._exp import exp_of_negative
from structops.reference.nms import descending_order

LINEAR, GAUSSIAN = range(2)


def pairwise_iou(boxes: torch.Tensor) -> torch.Tensor:
    """``[N, N]`` of ``boxes [N, 4]``, each operation rounded once, in the order written here."""
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1) * (y2 - y1)
    width = (torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1)).clamp(min=0)
    height = (torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1)).clamp(min=0)
    intersection = width * height
    return intersection / (area[:, None] + area - intersection)


def matrix_nms(
    scores: torch.Tensor,
    boxes: torch.Tensor | None,
    ious: torch.Tensor | None,
    idxs: torch.Tensor | None,
    kernel: int,
    sigma: float,
) -> torch.Tensor:
    """``scores [N]``, each times the smallest weight that a better one of its class gives it.

    A better one's weight is that of its IoU with this one, over the smallest that it gets itself: f(iou) / f(worst),
    where f(x) is 1 - x or exp(-sigma x^2). Overlaps come from ``boxes [N, 4]`` or are given, ``ious [N, N]``.
    """
    given = boxes if ious is None else ious
    assert given is not None  # one of the two
    compute = torch.float64 if torch.float64 in (scores.dtype, given.dtype) else torch.float32
    scores = scores.to(compute)
    n = len(scores)
    if n == 0:
        return scores.clone()
    rank = torch.empty(n, dtype=torch.int64, device=scores.device)
    rank[descending_order(scores)] = torch.arange(n, device=scores.device)
    overlap = given.to(compute).T if boxes is None else pairwise_iou(given.to(compute))
    counts = (rank[:, None] < rank) & (overlap > 0)  # row: the better one; NaN is no overlap
    if idxs is not None:
        counts = counts & (idxs[:, None] == idxs)
    overlap = torch.where(counts, overlap.clamp(max=1), 0.0)
    worst = overlap.max(0).values[:, None]  # of each, with any better one
    if kernel == GAUSSIAN:
        exponents = torch.where(counts, worst * worst - overlap * overlap, 0.0).min(0).values.clamp(max=0)
        scale = torch.tensor(min(sigma, torch.finfo(compute).max), dtype=compute, device=scores.device)
        return scores * exp_of_negative(exponents * scale)
    # One that coincides with a better one has no say: that one says the same.
    weights = torch.where(counts & (worst < 1), (1 - overlap) / (1 - worst), 1.0).min(0).values.clamp(max=1)
    return scores * weights
