"""Non-maximum suppression of segments by its definition, with no second axis.

The public function runs on :func:`structops.reference.nms.nms` where the reference is asked for; this one says what
that must amount to, and ``tests/test_nms_1d.py`` compares the two.
"""

from __future__ import annotations

import torch

from structops.reference.nms import descending_order


def nms_1d(
    segments: torch.Tensor, scores: torch.Tensor, iou_threshold: float, idxs: torch.Tensor | None = None
) -> torch.Tensor:
    """Indices of the segments ``[N, 2]`` (start, end) that greedy suppression keeps, by falling score ``[N]``."""
    compute = torch.float64 if torch.float64 in (segments.dtype, scores.dtype) else torch.float32
    start, end = segments.to(compute).unbind(1)
    idxs = torch.zeros_like(scores, dtype=torch.int64) if idxs is None else idxs
    length = end - start
    candidates = descending_order(scores.to(compute))
    kept = [candidates[:0]]
    while len(candidates):
        best, rest = candidates[:1], candidates[1:]
        kept.append(best)
        common = (torch.minimum(end[best], end[rest]) - torch.maximum(start[best], start[rest])).clamp(min=0)
        iou = common / (length[best] + length[rest] - common)
        candidates = rest[~((iou.double() > iou_threshold) & (idxs[best] == idxs[rest]))]
    return torch.cat(kept)
