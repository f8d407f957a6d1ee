from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from structops.ops._boxes import Boxes
from structops.ops.roi_pool import roi_pool


class RoIPool(nn.Module):
    """See :func:`structops.ops.roi_pool`. Arguments as ``torchvision.ops.RoIPool`` takes them."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: torch.Tensor, rois: Boxes) -> torch.Tensor:
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
