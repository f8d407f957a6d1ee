"""Shared by the tests of structops.patch: torchvision as shipped before and after each, and what ran in between."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision

import structops
from structops._backend import Op
from structops.integrations import torchvision as integration
from structops.integrations._torchvision_kernels import MAKERS

OPS_PATCHED = tuple(MAKERS)
PAIRS = integration.functions()  # (torchvision's function, ours)
METHODS = integration.methods()  # (class, torchvision's method, ours)
torchvision_batched_nms = torchvision.ops.boxes.batched_nms


@pytest.fixture(autouse=True)
def _unpatched():
    """Each test starts and ends with torchvision as shipped."""
    structops.unpatch()
    before = state()
    yield
    structops.unpatch()
    assert state() == before


def state() -> tuple[list[str], list[str], list[dict[str, object]], object]:
    """What the patch touches: the dispatcher's tables, names bound to functions, methods, the deterministic path."""
    tables = [torch._C._dispatch_dump(f"torchvision::{op}") for op in OPS_PATCHED]
    bindings = sorted(
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "torchvision"
        for key, value in list(vars(module).items())
        if any(value is theirs for theirs, _ in PAIRS)
    )
    # Methods alone: TorchScript gives a class annotations when it first looks at it.
    methods = [{name: value for name, value in vars(owner).items() if callable(value)} for owner, _, _ in METHODS]
    return tables, bindings, methods, sys.modules["torchvision.ops.roi_align"]._roi_align


def is_patched() -> bool:
    kernels = [torch.library.get_kernel(f"torchvision::{op}", "CPU") for op in OPS_PATCHED]
    found = {"integrations" in repr(kernel) for kernel in kernels}
    for theirs, ours in PAIRS:
        bound = getattr(sys.modules[theirs.__module__], theirs.__name__)
        assert bound in (theirs, ours)
        found.add(bound is ours)
    for owner, theirs, ours in METHODS:
        bound = vars(owner)[ours.__name__]
        assert bound in (theirs, ours)
        found.add(bound is ours)
    assert len(found) == 1, "half patched"
    return found.pop()


@pytest.fixture
def ran(monkeypatch):
    """Names of the structops ops that ran, in order."""
    names: list[str] = []
    call = Op.__call__

    def spy(self, *args):
        names.append(self.name)
        return call(self, *args)

    monkeypatch.setattr(Op, "__call__", spy)
    return names


def boxes_and_scores(n: int, seed: int = 0, spread: float = 100.0, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator) * 20], 1)
    return boxes.to(dtype), torch.rand(n, generator=generator).to(dtype), torch.randint(5, (n,), generator=generator)
