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


def suffix(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def conv_map(x: torch.Tensor) -> tuple[int, ...]:
    return (*x.stride(), *x.shape[2:])


def _steps(kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, ...]:
    common = math.gcd(stride, dilation)
    step = stride // common
    return kernel, stride, padding, dilation, common, pow(dilation // common, -1, step) if step > 1 else 0


def shape_of(batch, groups, depth, channels, kernel, stride, padding, dilation, forward) -> tuple:
    axes = zip(kernel, stride, padding, dilation, strict=True)
    y, x = (_steps(*axis) for axis in axes)
    return batch, groups, depth, channels, *y, *x, forward


def pack(emulator: Emulator, source, weight, shape: tuple, groups: int, forward: bool) -> torch.Tensor:
    depth, channels = shape[2:4]
    whole = 16 // source.dtype.itemsize
    padded = -(-depth // whole) * whole
    packed = poisoned(weight.shape[2] * weight.shape[3] * groups * channels * padded, like=source)
    if packed.numel():
        first, second = weight.stride()[:2] if forward else reversed(weight.stride()[:2])
        strides = (weight.shape[0] // groups * weight.stride(0), first, second, *weight.stride()[2:])
        emulator.launch(f"conv_pack_{suffix(source)}", *shape, weight, *strides, packed)
    return packed


def _convolve(emulator: Emulator, source, weight, out, shape: tuple, groups: int, forward: bool, *epilogue) -> None:
    packed = pack(emulator, source, weight, shape, groups, forward)
    name = "conv_depthwise" if groups > 1 and shape[2] == shape[3] == 1 else "conv_gather"
    emulator.launch(
        f"{name}_{suffix(source)}", *shape, *conv_map(source), source, packed, *conv_map(out), out, *epilogue
    )


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
    parts = emulator.launch("conv_grad_weight_parts", batch * height * width)
    wide = torch.promote_types(input.dtype, torch.float32)
    partials = poisoned(parts * out.numel(), like=input, dtype=wide)
    kernel = (kernel_height, kernel_width)
    shape = shape_of(batch, groups, inputs // groups, outputs, kernel, stride, padding, dilation, True)
    strides = (inputs // groups * out.stride(0), *out.stride())
    maps = (*conv_map(input), input, *conv_map(grad), grad)
    emulator.launch(f"conv_grad_weight_{suffix(input)}", *shape, *maps, parts, partials, *strides, out)
    return out
