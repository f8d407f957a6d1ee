from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from structops.ops import ps_roi_align
from structops.ops._boxes import Boxes


class PSRoIAlign(nn.Module):
    """See :func:`structops.ops.ps_roi_align`. Arguments as ``torchvision.ops.PSRoIAlign`` takes them."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: torch.Tensor, rois: Boxes) -> torch.Tensor:
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
        )
