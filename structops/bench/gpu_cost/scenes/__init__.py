"""The workloads whose cost on a GPU is counted: the shapes of the benchmarks, and the launches that they come to.

A file here is a family: its ``TITLE``, and ``SCENES``, which draws those of each of its ops. Families are reported by
themselves, each with a table and a picture.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

from structops.bench.gpu_cost.kernels import Launch
from structops.testing.workloads import Cost

HALF, FULL = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Peer:
    """How another library does a workload, in float32.

    Attributes:
        cost: as the workload's benchmark has it.
        launches: of its kernels.
        extra: bytes that it moves beyond the compulsory: clearing what it adds to, copies.
        calls: launches and syncs, of the same calls made on the CPU, with few channels.
    """

    cost: Callable[[], Cost]
    launches: Callable[[], list[Launch]]
    extra: float
    calls: Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Scene:
    """A workload to count.

    Attributes:
        outputs: elements that the instructions are divided by.
        cost: as the workload's benchmark has it.
        own: launches.
        peer: ``None`` where its machine code cannot be had.
        extra: bytes of copies and partial sums that the kernels write beyond the compulsory.
    """

    op: str
    title: str
    outputs: int
    cost: Callable[[], Cost]
    own: Callable[[], list[Launch]]
    peer: Peer | None = None
    extra: float = 0.0


Draw = Callable[[], list[Scene]]


@dataclass(frozen=True)
class Family:
    name: str
    title: str
    scenes: dict[str, Draw]


def families() -> list[Family]:
    """Of the files of this package, in the order of their names."""
    modules = [(m.name, importlib.import_module(f"{__name__}.{m.name}")) for m in pkgutil.iter_modules(__path__)]
    return [Family(name, module.TITLE, module.SCENES) for name, module in modules]


def ops() -> list[str]:
    """Those that have scenes."""
    return [op for family in families() for op in family.scenes]
