"""What the bindings of transposed convolutions share: numbers of the launchers' structs, packed maps and weights."""

from __future__ import annotations

import math

import torch

from ..emulator import Emulator, poisoned


def suffix(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def conv_map(x: torch.Tensor) -> tuple[int, ...]:
    return (*x.stride(), *x.shape[2:])


def steps(kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, ...]:
    common = math.gcd(stride, dilation)
    step = stride // common
    return kernel, stride, padding, dilation, common, pow(dilation // common, -1, step) if step > 1 else 0


def shape_of(batch, groups, depth, channels, kernel, stride, padding, dilation, forward) -> tuple:
    axes = zip(kernel, stride, padding, dilation, strict=True)
    y, x = (steps(*axis) for axis in axes)
    return batch, groups, depth, channels, *y, *x, forward


def is_wide(x: torch.Tensor, channels: int) -> bool:
    pack = 16 // x.dtype.itemsize
    others = (channels, x.stride(0), x.stride(2), x.stride(3), x.data_ptr() // x.dtype.itemsize)
    return x.stride(1) == 1 and all(n % pack == 0 for n in others)


def pack_as(emulator: Emulator, source, *numbers, size: int) -> torch.Tensor:
    """A new tensor of ``size`` by conv_pack: four (size, stride from, stride to), and the depth, its stride, padded."""
    packed = poisoned(size, like=source)
    emulator.launch(f"conv_pack_{suffix(source)}", *numbers, source, packed)
    return packed


def wide_map(emulator: Emulator, x: torch.Tensor, groups: int) -> tuple:
    """The numbers of a ConvMap, and what it is of: the map, or a copy [n, y, x, group, padded channels]."""
    channels, (_, _, height, width) = x.shape[1] // groups, x.shape
    padded = padded_depth(channels, x)
    pixel = groups * padded
    if pixel == 0 or is_wide(x, channels):
        return *conv_map(x), x
    to = height * width * pixel, 1, width * pixel, pixel, height, width
    axes = (
        *(x.shape[0], x.stride(0), to[0]),
        *(groups, channels * x.stride(1), padded),
        *(height, x.stride(2), to[2]),
        *(width, x.stride(3), to[3]),
    )
    size = x.shape[0] * to[0]
    return *to, pack_as(emulator, x, *axes, channels, x.stride(1), padded, size=size)


def padded_depth(depth: int, x: torch.Tensor) -> int:
    pack = 16 // x.dtype.itemsize
    return -(-depth // pack) * pack


def packed_weight(emulator: Emulator, weight, shape: tuple, forward: bool) -> torch.Tensor:
    """``[kernel y, kernel x, groups, written channels, padded depth]``."""
    _, groups, depth, channels = shape[:4]
    _, _, height, width = weight.shape
    padded = padded_depth(depth, weight)
    row, read = groups * channels * padded, 0 if forward else 1
    if not row:
        return weight.new_empty(0)
    axes = (
        *(groups, weight.shape[0] // groups * weight.stride(0), channels * padded),
        *(channels, weight.stride(1 - read), padded),
        *(height, weight.stride(2), width * row),
        *(width, weight.stride(3), row),
    )
    return pack_as(emulator, weight, *axes, depth, weight.stride(read), padded, size=height * width * row)
