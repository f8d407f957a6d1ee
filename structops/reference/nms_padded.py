"""Non-maximum suppression of a batch, with results of fixed shape, by its definition."""

from __future__ import annotations

import torch

from structops.reference.nms import batched_nms


def taking_part(scores: torch.Tensor, valid: torch.Tensor | None, score_threshold: float | None) -> torch.Tensor:
    """``[B, N]`` bool: within its image's count or marked as valid, and scoring more than the threshold."""
    n = scores.shape[1]
    takes = torch.ones_like(scores, dtype=torch.bool)
    if valid is not None:
        takes = valid if valid.dtype == torch.bool else torch.arange(n, device=scores.device) < valid[:, None]
    if score_threshold is not None:
        takes = takes & (scores.double() > score_threshold)
    return takes


def nms_padded(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor | None,
    valid: torch.Tensor | None,
    iou_threshold: float,
    max_output: int,
    score_threshold: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each image of ``boxes [B, N, 4]`` what :func:`batched_nms` gives for the boxes that take part.

    Returns indices ``[B, max_output]``, filled up with -1, and counts ``[B]``.
    """
    images = scores.shape[0]
    indices = torch.full((images, max_output), -1, dtype=torch.int64, device=boxes.device)
    counts = torch.zeros(images, dtype=torch.int64, device=boxes.device)
    takes = taking_part(scores, valid, score_threshold)
    for image in range(images):
        members = takes[image].nonzero()[:, 0]
        classes = torch.zeros_like(members) if idxs is None else idxs[image, members]
        kept = batched_nms(boxes[image, members], scores[image, members], classes, iou_threshold)[:max_output]
        indices[image, : len(kept)] = members[kept]
        counts[image] = len(kept)
    return indices, counts
