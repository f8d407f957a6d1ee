"""What a call asks of torch and of the device: the operators that it calls, and itself as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Call = tuple[Any, tuple, dict]

#: torch's operators whose result's size or value the host has to know: on a GPU it waits for it
WAITS = frozenset(
    [
        "_local_scalar_dense",
        "item",
        "is_nonzero",
        "equal",
        "nonzero",
        "masked_select",
        "index",
        "unique",
        "_unique2",
        "unique_consecutive",
    ]
)


class Recorder(TorchDispatchMode):
    """Remembers each call of an operator, below autograd: (overload, args, kwargs)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    @property
    def own(self) -> list[Call]:
        """Those of this library, on any backend."""
        return [call for call in self.calls if call[0].namespace.startswith("structops")]

    @property
    def names(self) -> list[str]:
        return [func._schema.name.split("::")[1] for func, _, _ in self.calls]

    @property
    def waits(self) -> list[str]:
        """Names of those that a GPU's host would wait in."""
        return [name for name in self.names if name in WAITS]


def captured(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of ``call`` and its results, which hold nothing before the graph's first replay.

    Raises ``RuntimeError`` where ``call`` waits for the device. What is compiled at a first call must have been.
    """
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return graph, results
