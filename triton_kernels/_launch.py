"""One kernel launch as a value, so that what runs on a device is exactly what is compiled ahead of time in tests."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

# Where there is no GPU to ask (interpreter, ahead-of-time compilation): the multiprocessors of an H100.
_MULTIPROCESSORS = 132


@dataclass(frozen=True)
class Launch:
    """A kernel with its grid and arguments.

    Attributes:
        kernel: what ``@triton.jit`` returned.
        arguments: every parameter of the kernel by name, compile-time ones included.
        options: ``num_warps`` and other compiler options.
        vector_loads: whether the features must be read 16 bytes at a time (asserted on the compiled code).
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    vector_loads: bool = False


def run(device: torch.device, launches: Iterable[Launch]) -> None:
    """Queue launches on the device's current stream, in order. Empty grids are skipped: drivers refuse them."""
    # Triton launches on the current device, whatever device its arguments live on.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        for launch in launches:
            if all(launch.grid):
                launch.kernel[launch.grid](**launch.arguments, **launch.options)


def multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def double_bits(value: float) -> int:
    """A double as an int64: Triton passes Python floats to kernels in single precision."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


def round_down(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of a dtype that is not above: a float32 IoU exceeds the one when it exceeds the other."""
    if dtype == torch.float64:
        return threshold
    # Without torch, where a number that is read counts as a wait for a device.
    rounded = ctypes.c_float(threshold).value
    if rounded > threshold:
        (bits,) = struct.unpack("<i", struct.pack("<f", rounded))
        lower = bits - 1 if rounded > 0 else bits + 1 if rounded < 0 else -0x7FFFFFFF  # the one below 0: -2 ** -149
        (rounded,) = struct.unpack("<f", struct.pack("<i", lower))
    return rounded
