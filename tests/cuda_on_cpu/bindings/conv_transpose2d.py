"""Transposed convolution by the CUDA kernels: what conv_transpose2d_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import math

import torch

from structops._layout import memory_format
from structops.testing import Case
from structops.testing.cases.conv_transpose2d import arguments

from ..emulator import Emulator, poisoned

# Depths and channels that 16-byte copies take, in more than one tile of each.
EXTRA = {
    "conv_transpose2d": (
        Case("two-tiles", lambda g: arguments(g, (1, 72, 5, 7), 80, 2, "bias residual", stride=2, activation="relu")),
        Case("many-steps", lambda g: arguments(g, (1, 136, 3, 3), 16, 4, "bias", stride=2, padding=1)),
    )
}


def _suffix(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _map(x: torch.Tensor) -> tuple[int, ...]:
    return (*x.stride(), *x.shape[2:])


def _steps(kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, ...]:
    common = math.gcd(stride, dilation)
    step = stride // common
    return kernel, stride, padding, dilation, common, pow(dilation // common, -1, step) if step > 1 else 0


def _shape(batch, groups, depth, channels, kernel, stride, padding, dilation, forward) -> tuple:
    axes = zip(kernel, stride, padding, dilation, strict=True)
    y, x = (_steps(*axis) for axis in axes)
    return batch, groups, depth, channels, *y, *x, forward


def _convolve(emulator: Emulator, source, weight, out, shape: tuple, groups: int, forward: bool, *epilogue) -> None:
    depth, channels = shape[2:4]
    pack = 16 // source.dtype.itemsize
    padded = -(-depth // pack) * pack
    packed = poisoned(weight.shape[2] * weight.shape[3] * groups * channels * padded, like=source)
    of_depth, of_channel = (weight.stride(0 if forward else 1), weight.stride(1 if forward else 0))
    if packed.numel():
        of_group = weight.shape[0] // groups * weight.stride(0)
        strides = (of_group, of_depth, of_channel, *weight.stride()[2:])
        emulator.launch(f"conv_pack_{_suffix(source)}", *shape, weight, *strides, packed)
    depthwise = groups > 1 and depth == channels == 1
    name = "conv_depthwise" if depthwise else "conv_gather"
    emulator.launch(f"{name}_{_suffix(source)}", *shape, *_map(source), source, packed, *_map(out), out, *epilogue)


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
    axes = zip(input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation, strict=True)
    size = [(n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, extra, d in axes]
    layout = memory_format(input)
    out = poisoned(input.shape[0], weight.shape[1] * groups, *size, like=input, memory_format=layout)
    if out.numel() == 0:
        return out
    wide = torch.promote_types(input.dtype, torch.float32)
    vectors = [None if v is None else v.to(wide).contiguous() for v in (bias, scale, shift)]
    residual = None if residual is None else residual.contiguous(memory_format=layout)
    shape = _shape(
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
    shape = _shape(
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
    parts = emulator.launch("conv_grad_weight_parts", batch * height * width)
    wide = torch.promote_types(input.dtype, torch.float32)
    partials = poisoned(parts * out.numel(), like=input, dtype=wide)
    kernel = (kernel_height, kernel_width)
    shape = _shape(batch, groups, inputs // groups, outputs, kernel, stride, padding, dilation, True)
    strides = (inputs // groups * out.stride(0), *out.stride())
    maps = (*_map(input), input, *_map(grad), grad)
    emulator.launch(f"conv_grad_weight_{_suffix(input)}", *shape, *maps, parts, partials, *strides, out)
    return out
