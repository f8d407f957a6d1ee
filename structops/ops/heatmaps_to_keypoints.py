"""Keypoints of heatmaps: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require

NAME = "heatmaps_to_keypoints"
MAX_HEATMAP = 4096  # kMaxHeatmap in csrc/heatmaps_to_keypoints/heatmaps_to_keypoints.h


def heatmaps_to_keypoints(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints of RoIs from their heatmaps: Mask R-CNN's decoding (He et al., 2017, section 5).

    Each map is resized bicubically to its RoI's size in pixels, rounded up, and the largest value is taken; the
    results are those of ``torchvision.models.detection.roi_heads.heatmaps_to_keypoints``. Nothing is resized in memory:
    most of what would be cannot be the largest, and is not computed. One launch, no host sync. Not differentiable.

    Args:
        maps: ``[K, P, H, W]`` scores of P keypoints in each of K RoIs; float16, bfloat16, float32 or float64. H and W
            are 1 to 4096.
        rois: ``[K, 4]`` (x1, y1, x2, y2) in image pixels. A side of less than 1 pixel counts as 1.

    Returns:
        ``(keypoints, scores)``: ``[K, P, 3]`` (x, y, 1) in image pixels, at pixel centres of the resized map, and the
        value there, ``[K, P]``. float32, float64 where any argument is. Of equal values the first, row by row; a NaN is
        the largest, as torch has it. A RoI with a first corner or a side that is not finite gives NaN (and the 1);
        a side of more than 8192 pixels is resized to 8192, one that ends at minus infinity is less than 1 pixel.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, or a map of another size.
    """
    return _heatmaps_to_keypoints(maps, rois)


def _check(maps, rois) -> None:
    require(
        maps.dim() == 4,
        lambda: f"{NAME}: maps must be [K, P, H, W] (4 dimensions), got {maps.dim()} dimensions",
    )
    _checks.floating(NAME, "maps", maps)
    count, _, height, width = maps.shape
    require(
        rois.dim() == 2 and rois.shape[0] == count and rois.shape[1] == 4,
        lambda: f"{NAME}: rois must be [K, 4] (x1, y1, x2, y2), one for each of the {count} maps, got {rois.shape}",
    )
    _checks.floating(NAME, "rois", rois)
    _checks.same_device(NAME, "rois", rois, "maps", maps)
    require(
        0 < height <= MAX_HEATMAP and 0 < width <= MAX_HEATMAP,
        lambda: f"{NAME}: maps must be 1 to {MAX_HEATMAP} pixels high and wide, got {height} x {width}",
    )


def _fake(maps, rois):
    dtype = torch.float64 if torch.float64 in (maps.dtype, rois.dtype) else torch.float32
    count, points = maps.shape[:2]
    return maps.new_empty((count, points, 3), dtype=dtype), maps.new_empty((count, points), dtype=dtype)


_heatmaps_to_keypoints = Op(NAME, module=NAME, check=_check, fake=_fake)
