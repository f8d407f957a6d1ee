"""What an op declares so that every generic check, ``structops verify`` and the test suite can run it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One input of an op.

    Attributes:
        name: unique within the op; shown in tables and test ids.
        make: draws the arguments of the public function, by name: CPU tensors, float64 where they are floating,
            contiguous. The checks then convert them to the dtype, layout and device under test.
        tags: ``"quick"`` (in the short set), ``"gradient"`` (small enough for gradcheck), ``"empty"``, ``"hostile"``
            (NaN, infinite, inverted or enormous boxes), ``"large"`` (not run by interpreters or emulators).
    """

    name: str
    make: Callable[[torch.Generator], Arguments]
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ErrorCase:
    """Arguments that must be refused.

    Attributes:
        match: regular expression that the message must match; names the argument.
    """

    name: str
    make: Callable[[], Arguments]
    match: str


@dataclass(frozen=True)
class OpSpec:
    """One public op.

    Attributes:
        name: that of the public function in :mod:`structops.ops`.
        function: the public function itself.
        dispatcher_ops: names under ``torch.ops.structops`` that this spec covers (an op and its backward).
        data: floating arguments that take each dtype and layout under test. Other floating arguments (boxes) keep
            float32, or float64 where the data are float64.
        layouts: those of ``data`` that have a memory format.
        differentiable: arguments with a gradient.
        compare: ``"close"``: against the float64 reference on the same quantised inputs, within the dtype's
            tolerance. ``"exact"``: equal to the reference in the same dtype (indices).
        peer: the same function of another library, by that library's name; same arguments, fewer promises.
    """

    name: str
    function: Callable[..., torch.Tensor]
    dispatcher_ops: tuple[str, ...]
    cases: tuple[Case, ...]
    errors: tuple[ErrorCase, ...]
    data: tuple[str, ...]
    layouts: tuple[str, ...] = ()
    differentiable: tuple[str, ...] = ()
    compare: Literal["close", "exact"] = "close"
    peer: Mapping[str, Callable[..., torch.Tensor]] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)

    def tagged(self, *tags: str, without: tuple[str, ...] = ()) -> tuple[Case, ...]:
        return tuple(c for c in self.cases if c.tags >= set(tags) and not c.tags & set(without))


def specs() -> dict[str, OpSpec]:
    """Every op's spec by name, gathered from the files of :mod:`structops.testing.cases`."""
    from structops.testing import cases

    found: dict[str, OpSpec] = {}
    for module in pkgutil.iter_modules(cases.__path__):
        loaded = importlib.import_module(f"{cases.__name__}.{module.name}")
        for spec in loaded.SPECS:
            found[spec.name] = spec
    return found
