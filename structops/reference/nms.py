"""Greedy non-maximum suppression by its definition."""

from __future__ import annotations

import torch


def descending_order(scores: torch.Tensor) -> torch.Tensor:
    """Indices by falling score; equal scores by the lower index; NaN last."""
    nan = scores.isnan()
    order = scores.masked_fill(nan, -torch.inf).argsort(descending=True, stable=True)
    return order[nan[order].int().argsort(stable=True)]


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes ``[N, 4]`` (x1, y1, x2, y2) that greedy suppression keeps, by falling score ``[N]``."""
    return batched_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device), iou_threshold)


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The same, where a box suppresses only boxes of its own class ``idxs [N]``.

    The IoU is rounded as every backend rounds it: in the boxes' type (float32 for halves; the wider of the two where
    boxes and scores differ), each operation once, in the order written here.
    """
    compute = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    boxes = boxes.to(compute)
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1) * (y2 - y1)
    candidates = descending_order(scores.to(compute))
    kept = []
    while len(candidates):
        best, rest = candidates[0], candidates[1:]
        kept.append(best)
        width = (torch.minimum(x2[best], x2[rest]) - torch.maximum(x1[best], x1[rest])).clamp(min=0)
        height = (torch.minimum(y2[best], y2[rest]) - torch.maximum(y1[best], y1[rest])).clamp(min=0)
        intersection = width * height
        iou = intersection / (area[best] + area[rest] - intersection)
        # Compared in float64: a float32 IoU must not be measured against a rounded threshold.
        suppressed = (iou.double() > iou_threshold) & (idxs[best] == idxs[rest])
        candidates = rest[~suppressed]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64, device=boxes.device)
