"""RoI Align of rotated boxes by the CUDA kernels: what csrc/roi_align_rotated/roi_align_rotated_binding_cuda.cpp does
around the launchers."""

from __future__ import annotations

import torch

from structops._layout import memory_format
from structops.testing import Case
from structops.testing.cases._draw import features, tensor
from structops.testing.cases.roi_align_rotated import rois

from ..emulator import Emulator, poisoned


def _more_rois_than_a_window(g):
    boxes = rois(g, 1100, 1, 4, 3, smallest=0.5, largest=2)
    return {"input": features(g, 1, 2, 3, 4), "boxes": boxes, "output_size": 1, "sampling_ratio": 1}


def _more_bins_than_pairs(g):
    boxes = tensor([0, 5, 4, 9, 8, 30], [0, 4, 4, 3, 2, -50])
    return {"input": features(g, 1, 3, 9, 10), "boxes": boxes, "output_size": (11, 12), "sampling_ratio": 1}


def _more_samples_than_the_table(g):
    return {"input": features(g, 1, 130, 9, 40), "boxes": tensor([0, 20, 4, 50, 40, 80]), "output_size": 1}


EXTRA = {
    "roi_align_rotated": (
        Case("more-rois-than-a-window", _more_rois_than_a_window),
        Case("more-bins-than-pairs", _more_bins_than_pairs),
        Case("more-samples-than-the-table", _more_samples_than_the_table),
    )
}


def _prepared(
    emulator: Emulator, features: torch.Tensor, rois: torch.Tensor, parameters: tuple
) -> tuple[torch.Tensor, torch.Tensor, bool, torch.Tensor]:
    """Strides of the features, rois as the kernels take them, whether the layout is channels_last, and a workspace."""
    rois = rois.contiguous() if rois.dtype == torch.float64 else rois.float().contiguous()
    channels_last = memory_format(features) == torch.channels_last
    size = emulator.launch("roi_align_rotated_workspace", *parameters)
    return torch.tensor(features.stride()), rois, channels_last, poisoned(size, like=features, dtype=torch.uint8)


def roi_align_rotated(
    emulator: Emulator,
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> torch.Tensor:
    shape = len(rois), input.shape[1], pooled_height, pooled_width
    output = poisoned(*shape, like=input, memory_format=memory_format(input))
    if output.numel() == 0:
        return output
    if input.numel() == 0:
        return output.zero_()
    parameters = len(rois), *input.shape, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned
    strides, rois, channels_last, workspace = _prepared(emulator, input, rois, parameters)
    name, is_double = (
        f"roi_align_rotated_forward_{str(input.dtype).removeprefix('torch.')}",
        rois.dtype == torch.float64,
    )
    arguments = clockwise, input, strides, rois, is_double, output, channels_last, workspace
    emulator.launch(name, *parameters, *arguments)
    return output


def roi_align_rotated_backward(
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
    clockwise: bool,
) -> torch.Tensor:
    shape = batch_size, channels, height, width
    grad_input = poisoned(*shape, like=grad, memory_format=memory_format(grad))
    if grad_input.numel() == 0:
        return grad_input
    if grad.numel() == 0:
        return grad_input.zero_()
    parameters = len(rois), *shape, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned
    strides, rois, channels_last, workspace = _prepared(emulator, grad, rois, parameters)
    name, is_double = (
        f"roi_align_rotated_backward_{str(grad.dtype).removeprefix('torch.')}",
        rois.dtype == torch.float64,
    )
    arguments = clockwise, grad, strides, rois, is_double, grad_input, channels_last, workspace
    emulator.launch(name, *parameters, *arguments)
    return grad_input
