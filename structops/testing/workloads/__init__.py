"""Realistic inputs for measuring, one file per op module; correctness has its own, smaller cases beside these.

Each workload knows how to check the result that is about to be timed, and the fewest bytes and operations that it
can need, so that a measured time can be set against what the machine allows.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

#: dtypes and memory formats in names of workloads
SHORT = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


@dataclass(frozen=True)
class Cost:
    """What any implementation has to do: bytes moved to or from memory once, floating-point operations done once."""

    bytes: int
    flops: int


@dataclass(frozen=True)
class Trial:
    """One workload, drawn on a device and ready to be called.

    Attributes:
        run: the ordinary public call, with a fresh output each time.
        peer: the same job by another library; ``None`` where that is not installed or has no such op.
        peer_name: what the peer is, and in which way it is not the same (``"torchvision, fp32"``).
            What either returns is for ``check`` and ``cost`` to know: a tensor, or several.
        check: takes the result of ``run`` and that of ``peer`` (or ``None``); raises ``AssertionError``.
        cost: takes the result of ``run``, since what an op must write can depend on the data.
    """

    run: Callable[[], Any]
    peer: Callable[[], Any] | None
    peer_name: str
    check: Callable[[Any, Any], None]
    cost: Callable[[Any], Cost]


@dataclass(frozen=True)
class Workload:
    """A named input of an op.

    Attributes:
        op: the public function in :mod:`structops.ops`.
        name: unique within the op; part of the test's id.
        title: the same for people, in tables and pictures.
        kind: ``"forward"``, ``"backward"``, or ``"sweep"`` (one point of cost against size).
        dtype: of the data.
        make: draws it on a device.
        quick: in the short run too.
        devices: device types that it is meant for.
        series, size: for a sweep: the name of its curve and the place on it.
    """

    op: str
    name: str
    title: str
    kind: str
    dtype: torch.dtype
    make: Callable[[torch.device], Trial]
    quick: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    series: str = ""
    size: int = 0


def generator(name: str) -> torch.Generator:
    """Random numbers that depend on a workload's name alone: the same input in every run and on every device."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def check_close(other: str, got: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Raises ``AssertionError`` where ``got`` is off by more than ``tolerance`` times the largest of ``wanted``."""
    error = (got.double() - wanted.double()).abs().max().item()
    allowed = tolerance * wanted.abs().max().item()
    assert error <= allowed, f"the result differs from {other} by {error:.2e}, allowed {allowed:.2e}"


def check_transpose(
    x: torch.Tensor, grad_x: torch.Tensor, y: torch.Tensor, grad_y: torch.Tensor, tolerance: float
) -> None:
    """A linear op's backward is its forward's transpose: <dX, x> = <dY, Y>, summed in float64."""
    left, right = (torch.dot(a.flatten().double(), b.flatten().double()).item() for a, b in ((grad_x, x), (grad_y, y)))
    allowed = tolerance * (grad_y.double().norm() * y.double().norm()).item()
    assert abs(left - right) <= allowed, f"the backward is not the forward's transpose: {left} and {right}"


def full_float32() -> contextlib.AbstractContextManager:
    """For a peer's convolutions in float32: left to itself, cuDNN rounds the factors to the 11 bits of TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def torchvision_ops():
    """``torchvision.ops``, or ``None`` where it is not installed."""
    try:
        return importlib.import_module("torchvision").ops
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return None


def workloads() -> dict[str, tuple[Workload, ...]]:
    """Every workload by op, gathered from the files of this package."""
    found: dict[str, list[Workload]] = {}
    for module in pkgutil.iter_modules(__path__):
        for workload in importlib.import_module(f"{__name__}.{module.name}").WORKLOADS:
            found.setdefault(workload.op, []).append(workload)
    return {op: tuple(those) for op, those in found.items()}
