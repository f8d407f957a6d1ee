"""Transposed convolution by the CUDA kernels: what conv_transpose2d_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops._layout import memory_format
from structops.reference.conv_transpose2d import output_size
from structops.testing import Case
from structops.testing.cases.conv_transpose2d import arguments

from ..emulator import Emulator, poisoned
from ._conv import conv_map, pack_as, packed_weight, padded_depth, shape_of, suffix, wide_map

MULTIPROCESSORS = 1  # so that cases of two blocks get the large tiles

# Depths and channels that 16-byte copies take, in more than one tile of each.
EXTRA = {
    "conv_transpose2d": (
        Case("two-tiles", lambda g: arguments(g, (1, 72, 5, 7), 96, 2, "bias residual", stride=2, activation="relu")),
        Case("many-steps", lambda g: arguments(g, (1, 136, 3, 3), 16, 4, "bias", stride=2, padding=1)),
    )
}


def _convolve(emulator: Emulator, source, weight, out, shape: tuple, groups: int, forward: bool, *epilogue) -> None:
    depth, channels = shape[2:4]
    _, _, height, width = weight.shape
    if groups > 1 and depth == channels == 1:
        padded = padded_depth(groups, source)
        taps = (height, weight.stride(2), width * padded, width, weight.stride(3), padded)
        size = height * width * padded
        packed = pack_as(emulator, weight, 1, 0, 0, 1, 0, 0, *taps, groups, weight.stride(0), padded, size=size)
        maps = (*conv_map(source), source, packed, *conv_map(out), out)
        return emulator.launch(f"conv_depthwise_{suffix(source)}", *shape, *maps, *epilogue)
    packed = packed_weight(emulator, weight, shape, forward)
    maps = (*wide_map(emulator, source, groups), packed, *conv_map(out), out)
    return emulator.launch(f"conv_gather_{suffix(source)}", *shape, *maps, *epilogue, MULTIPROCESSORS)


def conv_transpose2d(
    emulator: Emulator,
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
    activation,
    negative_slope,
    residual_after_activation,
) -> torch.Tensor:
    size = output_size(input, weight, stride, padding, output_padding, dilation)
    layout = memory_format(input)
    out = poisoned(input.shape[0], weight.shape[1] * groups, *size, like=input, memory_format=layout)
    if out.numel() == 0:
        return out
    wide = torch.promote_types(input.dtype, torch.float32)
    vectors = [None if v is None else v.to(wide).contiguous() for v in (bias, scale, shift)]
    residual = None if residual is None else residual.contiguous(memory_format=layout)
    shape = shape_of(
        input.shape[0],
        groups,
        weight.shape[0] // groups,
        weight.shape[1],
        weight.shape[2:],
        stride,
        padding,
        dilation,
        True,
    )
    epilogue = (*vectors, residual, activation, negative_slope, residual_after_activation)
    _convolve(emulator, input, weight, out, shape, groups, True, *epilogue)
    return out


def conv_transpose2d_grad_input(
    emulator: Emulator, grad, weight, height, width, stride, padding, groups, dilation
) -> torch.Tensor:
    out = poisoned(grad.shape[0], weight.shape[0], height, width, like=grad, memory_format=memory_format(grad))
    if out.numel() == 0:
        return out
    shape = shape_of(
        grad.shape[0],
        groups,
        weight.shape[1],
        weight.shape[0] // groups,
        weight.shape[2:],
        stride,
        padding,
        dilation,
        False,
    )
    _convolve(emulator, grad, weight, out, shape, groups, False, None, None, None, None, 0, 0.0, False)
    return out


def conv_transpose2d_grad_weight(
    emulator: Emulator, input, grad, kernel_height, kernel_width, stride, padding, groups, dilation
) -> torch.Tensor:
    batch, inputs, height, width = input.shape
    outputs = grad.shape[1] // groups
    layout = memory_format(input)
    out = poisoned(inputs, outputs, kernel_height, kernel_width, like=input, memory_format=layout)
    if out.numel() == 0:
        return out
    if batch == 0:
        return out.zero_()
    kernel = (kernel_height, kernel_width)
    shape = shape_of(batch, groups, inputs // groups, outputs, kernel, stride, padding, dilation, True)
    parts = emulator.launch("conv_grad_weight_parts", *shape, batch * height * width)
    wide = torch.promote_types(input.dtype, torch.float32)
    partials = poisoned(parts * out.numel(), like=input, dtype=wide)
    strides = (inputs // groups * out.stride(0), *out.stride())
    if groups > 1 and inputs == groups and outputs == 1:
        name, maps = "conv_depthwise_grad", (*conv_map(input), input, *conv_map(grad), grad)
    else:
        name = "conv_grad_weight"
        maps = (*wide_map(emulator, input, groups), *wide_map(emulator, grad, groups))
    emulator.launch(f"{name}_partials_{suffix(input)}", *shape, *maps, parts, partials)
    emulator.launch(f"conv_grad_weight_total_{suffix(input)}", *shape, partials, parts, *strides, out)
    return out
