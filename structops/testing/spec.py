"""What an op declares so that every generic check, ``structops verify`` and the test suite can run it."""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Arguments = dict[str, Any]
TAGS = frozenset({"quick", "gradient", "empty", "hostile", "large"})


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Case:
    """One input of an op.

    Attributes:
        name: unique within the op; shown in tables and test ids.
        make: draws the arguments of the public function, by name: CPU tensors, contiguous, float64 where they take
            the type under test. The checks convert float64 tensors to that type, layout and device; a tensor of
            another type keeps it.
        tags: ``"quick"`` (in the short set: small enough for interpreters and compilers), ``"gradient"`` (small
            enough for numerical derivatives), ``"empty"``, ``"hostile"`` (NaN, infinite, inverted or enormous boxes:
            other libraries crash on these, so none is called), ``"large"`` (not run by interpreters or emulators).
    """

    name: str
    make: Callable[[torch.Generator], Arguments]
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if unknown := self.tags - TAGS:
            raise ValueError(f"case {self.name}: unknown tags {sorted(unknown)}; they are {sorted(TAGS)}")

    def draw(self) -> Arguments:
        """The arguments; the same in every process."""
        return self.make(torch.Generator().manual_seed(zlib.crc32(self.name.encode())))


@dataclass(frozen=True)
class ErrorCase:
    """Arguments that must be refused.

    Attributes:
        match: regular expression that the message must match; names the argument.
        device: the only device type on which they are refused; ``None``: on all. Elsewhere looking would cost a host
            sync: there they give NaN, and finite gradients.
        elsewhere: ``"clamped"``: on other device types a number in range takes the place of the bad one.
        op: a dispatcher op (of ``torch.ops.structops``) to call instead of the public function; ``make`` then
            returns its arguments.
    """

    name: str
    make: Callable[[], Arguments]
    match: str
    device: str | None = None
    op: str | None = None
    elsewhere: Literal["nan", "clamped"] = "nan"


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class OpSpec:
    """One public op.

    Attributes:
        name: that of the public function in :mod:`structops.ops`.
        function: the public function itself.
        dispatcher_ops: names under ``torch.ops.structops`` that this spec covers (an op and its backward).
        data: floating arguments that take each dtype and layout under test. Other floating arguments (boxes) are
            float32, or float64 where the data are float64. A list of tensors is one argument.
        layouts: those of ``data`` that have a memory format.
        differentiable: arguments with a gradient; in a list each tensor has its own.
        compare: ``"close"``: against the float64 reference on the same quantised inputs, within the dtype's
            tolerance (integer results are equal). ``"exact"``: equal to the reference in the same dtype (indices).
        own_device: the definition runs on the device under test and not on the CPU. For results that are equal only
            with the same exponentials: torch's differ between devices in their last bit.
        scale: what errors are relative to: ``"inputs"``, the largest of ``data`` (averages of features), or
            ``"outputs"``, the largest of each result, and of each gradient, by itself (an IoU of boxes).
        syncs: the size of a result depends on data, so that one wait for a GPU cannot be avoided.
        widens: a half-precision argument gives float32 results.
        lowers: arguments that autocast casts to its lower type, as it does those of a matrix product. Without any the
            op computes under autocast what it computes without.
        peer: the same function of another library, by that library's name; same arguments, fewer promises.
            Imports the library when called.
    """

    name: str
    function: Callable[..., Any]
    dispatcher_ops: tuple[str, ...]
    cases: tuple[Case, ...]
    errors: tuple[ErrorCase, ...]
    data: tuple[str, ...]
    layouts: tuple[str, ...] = ()
    differentiable: tuple[str, ...] = ()
    compare: Literal["close", "exact"] = "close"
    own_device: bool = False
    scale: Literal["inputs", "outputs"] = "inputs"
    syncs: bool = False
    widens: bool = False
    lowers: tuple[str, ...] = ()
    peer: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

    def __post_init__(self) -> None:
        names = [case.name for case in self.cases]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name}: cases share the names {sorted({n for n in names if names.count(n) > 1})}")

    def result_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """That of the floating results for data of ``dtype``."""
        return torch.promote_types(dtype, torch.float32) if self.widens else dtype

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)

    def tagged(self, *tags: str, without: tuple[str, ...] = ()) -> tuple[Case, ...]:
        return tuple(c for c in self.cases if c.tags >= set(tags) and not c.tags & set(without))


def specs() -> dict[str, OpSpec]:
    """Every op's spec by name, gathered from the files of :mod:`structops.testing.cases`."""
    from structops.testing import cases

    found: dict[str, OpSpec] = {}
    for module in pkgutil.iter_modules(cases.__path__):
        if not module.name.startswith("_"):
            for spec in importlib.import_module(f"{cases.__name__}.{module.name}").SPECS:
                found[spec.name] = spec
    return found
