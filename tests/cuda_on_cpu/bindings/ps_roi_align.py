"""Position-sensitive RoI Align by the CUDA kernels."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases._draw import rois
from structops.testing.cases.ps_roi_align import arguments

from ..emulator import Emulator
from . import _ps_roi


def _tiles(g):
    # Planes of more pixels than a warp's tile holds, along each axis, and rows longer than it.
    return arguments(g, (1, 1, 5, 2700), rois(g, 4, 1, 2700, 5, smallest=3, largest=40), (1, 2), sampling_ratio=2)


EXTRA = {"ps_roi_align": (Case("planes-of-several-tiles", _tiles),)}


def ps_roi_align(
    emulator: Emulator,
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> torch.Tensor:
    pooled = (pooled_height, pooled_width)
    return _ps_roi.forward(emulator, input, rois, spatial_scale, pooled, sampling_ratio, False)


def ps_roi_align_backward(
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
    sampling_ratio: int,
) -> torch.Tensor:
    input_size = (batch_size, channels, height, width)
    return _ps_roi.backward(emulator, grad, rois, spatial_scale, input_size, sampling_ratio, False)
