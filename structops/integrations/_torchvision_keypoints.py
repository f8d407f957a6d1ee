"""Keypoints of torchvision's Keypoint R-CNN: decoded in one launch an image, without a wait for each RoI."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection import roi_heads

from structops import ops
from structops.integrations._torchvision_devices import patched
from structops.ops.heatmaps_to_keypoints import MAX_HEATMAP

# Captured when this module is first imported, which is before the first patch.
_torchvision_heatmaps_to_keypoints = roi_heads.heatmaps_to_keypoints


def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """``torchvision.models.detection.roi_heads.heatmaps_to_keypoints``.

    Args:
        maps: ``[K, P, H, W]`` heatmaps.
        rois: ``[K, 4]`` (x1, y1, x2, y2).

    Returns:
        keypoints ``[K, P, 3]`` (x, y, 1) and scores ``[K, P]``.
    """
    if torch.jit.is_scripting():
        return _torchvision_heatmaps_to_keypoints(maps, rois)
    else:
        if torch.jit.is_tracing() or not _takes(maps, rois):
            return _torchvision_heatmaps_to_keypoints(maps, rois)
        keypoints, scores = ops.heatmaps_to_keypoints(maps, rois)
        rows = keypoints.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # torchvision's strides
        return rows.transpose(1, 2), scores


def _takes(maps, rois) -> bool:
    """Whether structops gives what torchvision would. In other types torchvision rounds the resized map to them."""
    return (
        patched(maps.device)
        and maps.dtype == rois.dtype == torch.float32
        and rois.device == maps.device
        and maps.dim() == 4
        and rois.dim() == 2
        and rois.shape[1] == 4
        and rois.shape[0] == maps.shape[0]
        and maps.shape[1] > 0
        and 0 < maps.shape[2] <= MAX_HEATMAP
        and 0 < maps.shape[3] <= MAX_HEATMAP
        and not (torch.is_grad_enabled() and (maps.requires_grad or rois.requires_grad))
        and not torch.overrides.has_torch_function((maps, rois))
    )


FUNCTIONS = ((_torchvision_heatmaps_to_keypoints, heatmaps_to_keypoints),)
