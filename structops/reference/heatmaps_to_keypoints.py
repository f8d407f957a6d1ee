"""Keypoints of heatmaps by their definition: each map is resized to its RoI, and the largest value taken."""

from __future__ import annotations

import torch

MAX_RESIZED = 8192  # the longest side of a resized map: kMaxResized in csrc/heatmaps_to_keypoints


def bicubic_taps(extent: int, size: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels ``[size, 4]`` (of an axis of ``extent`` pixels, edges repeated) and their weights ``[size, 4]``.

    Keys' cubic convolution with a = -0.75, ``align_corners=False``.
    """
    at = torch.arange(size, dtype=like.dtype, device=like.device)
    source = (at + 0.5) * (extent / size) - 0.5
    low = source.floor().clamp(max=extent - 1)
    t = (source - low).clamp(0, 1)

    def near(x: torch.Tensor) -> torch.Tensor:
        return (1.25 * x - 2.25) * x * x + 1

    def far(x: torch.Tensor) -> torch.Tensor:
        return ((-0.75 * x + 3.75) * x - 6) * x + 3

    pixels = low.long()[:, None] + torch.arange(-1, 3, device=like.device)
    return pixels.clamp(0, extent - 1), torch.stack([far(t + 1), near(t), near(1 - t), far(2 - t)], 1)


def heatmaps_to_keypoints(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints ``[K, P, 3]`` (x, y, 1) and scores ``[K, P]`` of ``maps [K, P, H, W]`` in ``rois [K, 4]``."""
    compute = torch.float64 if torch.float64 in (maps.dtype, rois.dtype) else torch.float32
    maps, rois = maps.to(compute), rois.to(compute)
    count, points, height, width = maps.shape
    keypoints = maps.new_full((count, points, 3), float("nan"))
    keypoints[..., 2] = 1
    scores = maps.new_full((count, points), float("nan"))
    corner = rois[:, :2]
    sides = (rois[:, 2:] - corner).clamp(min=1)
    finite = (corner.isfinite() & sides.isfinite()).all(1)
    sizes = sides.ceil().clamp(max=MAX_RESIZED)
    steps = sides / sizes  # pixels of the image for one of the resized map
    for k in finite.nonzero()[:, 0].tolist():
        w, h = sizes[k].int().tolist()
        columns, x_weights = bicubic_taps(width, w, maps)
        rows, y_weights = bicubic_taps(height, h, maps)
        for p in range(points):
            lines = (maps[k, p][:, columns] * x_weights).sum(-1)  # [H, w]
            resized = (lines[rows] * y_weights[..., None]).sum(1)  # [h, w]
            best = resized.flatten().argmax()  # NaN is the largest
            place = torch.stack([best % w, best // w]).to(compute)
            keypoints[k, p, :2] = (place + 0.5) * steps[k] + corner[k]
            scores[k, p] = resized.flatten()[best]
    return keypoints, scores
