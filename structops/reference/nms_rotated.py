"""Greedy non-maximum suppression of rotated boxes by its definition."""

from __future__ import annotations

import torch

from structops.reference.box_iou_rotated import iou, rotated_boxes
from structops.reference.nms import descending_order


def nms_rotated(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes ``[N, 5]`` (centre x, centre y, width, height, degrees) that are kept, by falling score."""
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms_rotated(boxes, scores, one_class, iou_threshold)


def batched_nms_rotated(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """The same, where a box suppresses only boxes of its own class ``idxs [N]``.

    The IoU is that of :func:`structops.reference.box_iou_rotated.box_iou_rotated`, rounded to its type: in float32, an
    IoU of 1/2 up to the last bits of a double is not above 1/2.
    """
    rounded = torch.promote_types(boxes.dtype, torch.float32)
    prepared = rotated_boxes(boxes)
    candidates = descending_order(scores.to(torch.promote_types(scores.dtype, torch.float32)))
    kept = []
    while len(candidates):
        best, rest = candidates[0], candidates[1:]
        kept.append(best)
        overlap = iou(prepared.at(best), prepared.at(rest)).to(rounded)
        suppressed = (overlap.double() > iou_threshold) & (idxs[best] == idxs[rest])
        candidates = rest[~suppressed]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64, device=boxes.device)
