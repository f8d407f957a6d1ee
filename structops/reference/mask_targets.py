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
