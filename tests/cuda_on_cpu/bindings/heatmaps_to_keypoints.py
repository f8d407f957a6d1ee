"""heatmaps_to_keypoints by the CUDA kernel: what its binding does around the launcher."""

from __future__ import annotations

import torch

from ..emulator import Emulator, poisoned


def heatmaps_to_keypoints(
    emulator: Emulator, maps: torch.Tensor, rois: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.float64 in (maps.dtype, rois.dtype)
    rois = rois.to(torch.float64 if wide else torch.float32).contiguous()
    maps = maps.to(rois.dtype if wide else maps.dtype).contiguous()
    count, points, height, width = maps.shape
    found = poisoned(count, points, 3, like=rois), poisoned(count, points, like=rois)
    if count * points:
        name = f"heatmaps_to_keypoints_{str(maps.dtype).removeprefix('torch.')}"
        emulator.launch(name, count, points, height, width, maps, rois, *found)
    return found
