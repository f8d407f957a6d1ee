from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from structops.ops._boxes import Boxes
from structops.ops.roi_align_rotated import roi_align_rotated


class RoIAlignRotated(nn.Module):
    """See :func:`structops.ops.roi_align_rotated`.

    The first three arguments as detectron2's ``ROIAlignRotated`` takes them, the others as mmcv's
    ``RoIAlignRotated``; angles are in degrees.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
        clockwise: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.clockwise = clockwise

    def forward(self, input: torch.Tensor, rois: Boxes) -> torch.Tensor:
        options = self.spatial_scale, self.sampling_ratio, self.aligned, self.clockwise
        return roi_align_rotated(input, rois, self.output_size, *options)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}, clockwise={self.clockwise}"
        )
