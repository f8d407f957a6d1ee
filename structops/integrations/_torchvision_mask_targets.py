"""Targets of torchvision's Mask R-CNN, read from bitmaps as they are stored."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection import roi_heads

from structops import ops
from structops._checks import FLOATING, INTEGER
from structops.integrations._torchvision_devices import patched
from structops.ops._boxes import MAX_POOLED

# Captured when this module is first imported, which is before the first patch.
_torchvision_project_masks_on_boxes = roi_heads.project_masks_on_boxes


def project_masks_on_boxes(gt_masks: Tensor, boxes: Tensor, matched_idxs: Tensor, M: int) -> Tensor:
    """``torchvision.models.detection.roi_heads.project_masks_on_boxes``.

    Args:
        gt_masks: ``[G, H, W]`` bitmaps.
        boxes: ``[K, 4]`` (x1, y1, x2, y2).
        matched_idxs: ``[K]`` the bitmap of each box.
        M: height and width of a target.

    Returns:
        targets ``[K, M, M]`` in the type of the boxes.
    """
    if torch.jit.is_scripting():
        return _torchvision_project_masks_on_boxes(gt_masks, boxes, matched_idxs, M)
    else:
        if torch.jit.is_tracing() or not _takes(gt_masks, boxes, matched_idxs, M):
            return _torchvision_project_masks_on_boxes(gt_masks, boxes, matched_idxs, M)
        if gt_masks.is_floating_point():
            gt_masks = gt_masks.to(boxes)
        return ops.mask_targets(gt_masks, boxes, matched_idxs, M)


def _takes(gt_masks, boxes, matched_idxs, M) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    return (
        patched(boxes.device)
        and gt_masks.device == matched_idxs.device == boxes.device
        and gt_masks.dtype in (torch.bool, torch.uint8, *FLOATING)
        and boxes.dtype in (torch.float32, torch.float64)
        and matched_idxs.dtype in INTEGER
        and gt_masks.dim() == 3
        and boxes.dim() == 2
        and boxes.shape[1] == 4
        and matched_idxs.shape == boxes.shape[:1]
        and isinstance(M, int)
        and 0 < M <= MAX_POOLED
        and not (torch.is_grad_enabled() and (gt_masks.requires_grad or boxes.requires_grad))
        and not torch.overrides.has_torch_function((gt_masks, boxes, matched_idxs))
    )


FUNCTIONS = ((_torchvision_project_masks_on_boxes, project_masks_on_boxes),)
