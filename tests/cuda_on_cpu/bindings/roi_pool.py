"""RoI Pool by the CUDA kernels: what csrc/roi_pool/roi_pool_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops._layout import memory_format
from structops.testing import Case
from structops.testing.cases._draw import features, rois
from structops.testing.checks import identical

from ..emulator import Emulator, poisoned


def _pooled(height: int, width: int):
    """Bins beyond what shared memory holds, or a warp's lanes."""

    def make(g):
        return {"input": features(g, 1, 2, 5, 9), "boxes": rois(g, 2, 1, 9, 5), "output_size": (height, width)}

    return make


EXTRA = {"roi_pool": (Case("bins-beyond-shared-memory", _pooled(1, 12500)), Case("many-bins", _pooled(40, 70)))}


def _boxes(rois: torch.Tensor) -> torch.Tensor:
    return rois.contiguous() if rois.dtype == torch.float64 else rois.float().contiguous()


def roi_pool(
    emulator: Emulator,
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    with_argmax: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    rois, layout = _boxes(rois), memory_format(input)
    shape = len(rois), input.shape[1], pooled_height, pooled_width
    output, inference = (poisoned(*shape, like=input, memory_format=layout) for _ in range(2))
    argmax = poisoned(*shape, like=input, dtype=torch.int32, memory_format=layout)
    if output.numel():
        parameters = len(rois), *input.shape, pooled_height, pooled_width, spatial_scale
        boxes = torch.tensor(input.stride()), rois, rois.dtype == torch.float64
        name = f"roi_pool_forward_{str(input.dtype).removeprefix('torch.')}"
        last = layout == torch.channels_last
        emulator.launch(name, *parameters, input, *boxes, output, argmax, last)
        # The checks ask for gradients, and so never for the kernel without argmax: held here to the same result.
        emulator.launch(name, *parameters, input, *boxes, inference, None, last)
        assert identical(output, inference), "without argmax the result differs"
    return output, argmax if with_argmax else argmax.new_empty(0)


def roi_pool_backward(
    emulator: Emulator,
    grad: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
) -> torch.Tensor:
    rois, layout = _boxes(rois), memory_format(grad)
    shape = batch_size, channels, height, width
    grad_input = poisoned(*shape, like=grad, memory_format=layout)
    if grad_input.numel() == 0:
        return grad_input
    if grad.numel() == 0:
        return grad_input.zero_()
    parameters = len(rois), *shape, pooled_height, pooled_width, spatial_scale
    workspace = poisoned(emulator.launch("roi_pool_backward_workspace", *parameters), like=grad, dtype=torch.uint8)
    name = f"roi_pool_backward_{str(grad.dtype).removeprefix('torch.')}"
    emulator.launch(
        name,
        *parameters,
        *(grad, torch.tensor(grad.stride()), rois, rois.dtype == torch.float64),
        *(argmax, torch.tensor(argmax.stride()), grad_input, layout == torch.channels_last, workspace),
    )
    return grad_input
