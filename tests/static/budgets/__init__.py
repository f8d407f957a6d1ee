"""What every CUDA kernel may use on sm_90: one file per folder of ``csrc``, with a dictionary ``BUDGETS``.

A key is the kernel's name as the compiler prints it, without namespaces and parameters. Registers decide occupancy:
a multiprocessor has 65536, and holds 2048 threads at 32 registers, 1024 at 64, 768 at 80, 512 at 128.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limits of one kernel.

    Attributes:
        registers: per thread, at most.
        wide_loads: 16-byte loads from global memory, at least; 0 where the kernel has no vector path.
        wide_stores: the same of stores, which the compiler likes to take apart.
        has, lacks: instructions that must and must not be there. Kernels are built without contraction: positions and
            IoU must round as on a CPU, so an addition stays a ``DADD`` and is not fused into a ``FFMA``.
    """

    registers: int
    wide_loads: int = 0
    wide_stores: int = 0
    has: str | None = None
    lacks: str | None = None


def per_type(pattern: str, budget: Budget) -> dict[str, Budget]:
    """The same budget for each storage type; the pattern has ``{T}``."""
    return {pattern.format(T=t): budget for t in ("__half", "__nv_bfloat16", "float", "double")}


def all_budgets() -> dict[str, Budget]:
    found: dict[str, Budget] = {}
    for module in pkgutil.iter_modules(__path__):
        budgets = importlib.import_module(f"{__name__}.{module.name}").BUDGETS
        assert not found.keys() & budgets.keys(), f"{module.name}: some kernels have a budget already"
        found |= budgets
    return found
