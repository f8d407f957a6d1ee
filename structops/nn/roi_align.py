from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from structops.ops._boxes import Boxes
from structops.ops.roi_align import roi_align


class RoIAlign(nn.Module):
    """See :func:`structops.ops.roi_align`. Arguments as ``torchvision.ops.RoIAlign`` takes them."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: torch.Tensor, rois: Boxes) -> torch.Tensor:
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
