"""Both position-sensitive ops by their CUDA kernels: what csrc/ps_roi_align/ps_roi_binding_cuda.h does around them."""

from __future__ import annotations

import torch

from structops._layout import memory_format

from ..emulator import Emulator, poisoned


def _launch(
    emulator: Emulator,
    direction: str,
    data: torch.Tensor,
    rois: torch.Tensor,
    result: torch.Tensor,
    *parameters: float,
) -> torch.Tensor:
    if result.numel() == 0:
        return result
    if data.numel() == 0:
        return result.zero_()
    rois = rois.contiguous() if rois.dtype == torch.float64 else rois.float().contiguous()
    parameters = len(rois), *parameters
    is_double = data.dtype == torch.float64
    size = emulator.launch("ps_roi_workspace", *parameters, is_double)
    workspace = poisoned(size, like=data, dtype=torch.uint8)
    channels_last = memory_format(data) == torch.channels_last
    name = f"ps_roi_{direction}_{str(data.dtype).removeprefix('torch.')}"
    emulator.launch(
        name, *parameters, data, torch.tensor(data.stride()), rois, rois.dtype == torch.float64, result, channels_last,
        workspace,
    )  # fmt: skip
    return result


def forward(
    emulator: Emulator,
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    average: bool,
) -> torch.Tensor:
    batch, channels, height, width = input.shape
    classes = channels // (pooled[0] * pooled[1])
    output = poisoned(len(rois), classes, *pooled, like=input, memory_format=memory_format(input))
    parameters = batch, classes, height, width, *pooled, spatial_scale, sampling_ratio, average
    return _launch(emulator, "forward", input, rois, output, *parameters)


def backward(
    emulator: Emulator,
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    input_size: tuple[int, int, int, int],
    sampling_ratio: int,
    average: bool,
) -> torch.Tensor:
    _, classes, *pooled = grad.shape
    batch, _, height, width = input_size
    grad_input = poisoned(*input_size, like=grad, memory_format=memory_format(grad))
    parameters = batch, classes, height, width, *pooled, spatial_scale, sampling_ratio, average
    return _launch(emulator, "backward", grad, rois, grad_input, *parameters)
