"""Position-sensitive RoI Pool by the CUDA kernels, which are those of position-sensitive RoI Align."""

from __future__ import annotations

import torch

from ..emulator import Emulator
from . import _ps_roi


def ps_roi_pool(
    emulator: Emulator,
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
) -> torch.Tensor:
    return _ps_roi.forward(emulator, input, rois, spatial_scale, (pooled_height, pooled_width), 0, True)


def ps_roi_pool_backward(
    emulator: Emulator,
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
) -> torch.Tensor:
    input_size = (batch_size, channels, height, width)
    return _ps_roi.backward(emulator, grad, rois, spatial_scale, input_size, 0, True)
