"""Targets of a mask head by their definition: RoI Align of the ground truth's bitmap, as torchvision trains on."""

from __future__ import annotations

import torch

from structops.reference.roi_align import roi_align


def mask_targets(
    gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, rows: int, columns: int
) -> torch.Tensor:
    """``[K, rows, columns]``: of ``gt_masks [G, H, W]`` those ``matched [K]``, inside of ``boxes [K, 4]``."""
    compute = torch.float64 if torch.float64 in (gt_masks.dtype, boxes.dtype) else torch.float32
    if 0 in gt_masks.shape[1:]:  # a bitmap without pixels is as one of zeros
        gt_masks = gt_masks.new_zeros(gt_masks.shape[0], 1, 1)
    rois = torch.cat([matched[:, None].double(), boxes.double()], 1)
    return roi_align(gt_masks[:, None].to(compute), rois, 1.0, rows, columns, 0, False)[:, 0]


def polygon_mask_targets(
    points: torch.Tensor,
    rings: torch.Tensor,
    objects: torch.Tensor,
    boxes: torch.Tensor,
    matched: torch.Tensor,
    rows: int,
    columns: int,
) -> torch.Tensor:
    """``[K, rows, columns]``: 1 where a pixel's centre is in an odd number of turns of a ring of the matched object.

    Positions are float64 whatever the arguments are, each operation rounded once.
    """
    compute = torch.float64 if torch.float64 in (points.dtype, boxes.dtype) else torch.float32
    points, boxes = points.double(), boxes.double()
    targets = boxes.new_zeros((len(boxes), rows, columns), dtype=compute)
    size = torch.tensor([columns, rows], device=boxes.device)
    steps = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0.1) / size
    ring_at, object_at = rings.tolist(), objects.tolist()
    for k, index in enumerate(matched.tolist()):
        if not (boxes[k].isfinite().all() and steps[k].isfinite().all() and 0 <= index < len(object_at) - 1):
            targets[k] = torch.nan
            continue
        x = boxes[k, 0] + (torch.arange(columns, device=boxes.device) + 0.5).double() * steps[k, 0]
        y = (boxes[k, 1] + (torch.arange(rows, device=boxes.device) + 0.5).double() * steps[k, 1])[:, None]
        for r in range(object_at[index], object_at[index + 1]):
            a = points[ring_at[r] : ring_at[r + 1]]
            inside = torch.zeros(rows, columns, dtype=torch.bool, device=boxes.device)
            for (ax, ay), (bx, by) in zip(a, a.roll(-1, 0), strict=True):
                crosses = (ay <= y) != (by <= y)
                inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
            targets[k].masked_fill_(inside, 1)
    return targets
