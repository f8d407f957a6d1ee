"""RoI Align by the CUDA kernels: what csrc/roi_align/roi_align_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops._layout import memory_format
from structops.testing import Case
from structops.testing.cases._draw import boxes, features

from ..emulator import Emulator, poisoned


def _wide_map(width: int):
    """Boxes as wide as the map with adaptive sampling: as many taps as it has columns."""

    def make(g):
        across = torch.cat([torch.zeros(3, 1), boxes(g, 3, width, 2, smallest=0.9 * width, largest=width)], 1)
        return {"input": features(g, 1, 2, 2, width), "boxes": across, "output_size": (1, 2), "aligned": True}

    return make


EXTRA = {
    "roi_align": (
        Case("more-shared-memory-than-the-default", _wide_map(7000)),
        Case("taps-beyond-shared-memory", _wide_map(12500)),
    )
}


def _prepared(features: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Strides of the features, rois as the kernels take them, and whether the layout is channels_last."""
    rois = rois.contiguous() if rois.dtype == torch.float64 else rois.float().contiguous()
    channels_last = memory_format(features) == torch.channels_last
    return torch.tensor(features.stride()), rois, channels_last


def roi_align(
    emulator: Emulator,
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    strides, rois, channels_last = _prepared(input, rois)
    shape = len(rois), input.shape[1], pooled_height, pooled_width
    output = poisoned(*shape, like=input, memory_format=memory_format(input))
    if output.numel() == 0:
        return output
    if input.numel() == 0:
        return output.zero_()
    parameters = len(rois), *input.shape, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned
    name = f"roi_align_forward_{str(input.dtype).removeprefix('torch.')}"
    emulator.launch(name, *parameters, input, strides, rois, rois.dtype == torch.float64, output, channels_last)
    return output


def roi_align_backward(
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
    aligned: bool,
) -> torch.Tensor:
    strides, rois, channels_last = _prepared(grad, rois)
    shape = batch_size, channels, height, width
    grad_input = poisoned(*shape, like=grad, memory_format=memory_format(grad))
    if grad_input.numel() == 0:
        return grad_input
    if grad.numel() == 0:
        return grad_input.zero_()
    parameters = len(rois), *shape, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned
    workspace = poisoned(emulator.launch("roi_align_backward_workspace", *parameters), like=grad, dtype=torch.uint8)
    name = f"roi_align_backward_{str(grad.dtype).removeprefix('torch.')}"
    is_double = rois.dtype == torch.float64
    emulator.launch(name, *parameters, grad, strides, rois, is_double, grad_input, channels_last, workspace)
    return grad_input
