"""Which check runs on which cases, types and layouts: one plan for the test suite and for ``structops verify``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from structops._backend import BACKENDS, unusable
from structops.testing import checks, graph_checks
from structops.testing.run import LAYOUTS, Check, Result, Target, interpreted
from structops.testing.spec import Case, ErrorCase, OpSpec
from structops.testing.tolerances import PEER_RELATIVE

CHECKS: dict[str, Check] = {
    "values": checks.check_values,
    "gradients": checks.check_gradients,
    "layout": checks.check_layout,
    "determinism": checks.check_determinism,
    "aliasing": checks.check_aliasing,
    "poison": checks.check_poison,
    "autocast": checks.check_autocast,
    "peers": checks.check_peers,
    "gradcheck": graph_checks.check_gradcheck,
    "gradgradcheck": graph_checks.check_gradgradcheck,
    "opcheck": graph_checks.check_opcheck,
    "compile": graph_checks.check_compile,
    "export": graph_checks.check_export,
    "capture": graph_checks.check_capture,
    "error": graph_checks.check_error,
}

#: what somebody else's function is judged by: the rest concerns how an op is registered, and its output's strides
FUNCTION_CHECKS = ("values", "gradients", "determinism", "aliasing", "poison", "gradcheck")

SINGLE, DOUBLE = torch.float32, torch.float64


@dataclass(frozen=True)
class Job:
    """One check of one case on one target."""

    check: str
    spec: OpSpec
    case: Case | ErrorCase
    target: Target

    def run(self) -> Result:
        return CHECKS[self.check](self.spec, self.case, self.target)

    def __str__(self) -> str:
        return f"{self.check} {self.spec.name} [{self.case.name}, {self.target}]"


def usable_backends(device: str) -> list[str]:
    return [name for name in BACKENDS if unusable(name, device) is None]


def layouts_of(spec: OpSpec) -> tuple[str, ...]:
    return LAYOUTS if spec.layouts else tuple(x for x in LAYOUTS if x != "channels_last")


def plan(
    spec: OpSpec,
    backend: str,
    device: str = "cpu",
    dtypes: Sequence[torch.dtype] | None = None,
    function: Callable[..., Any] | None = None,
    relative: float | None = None,
) -> Iterator[Job]:
    """Every job for an op on a backend and device. With a ``function``, those that judge a function by itself.

    Args:
        relative: tolerance of values and gradients relative to the largest input, in place of each dtype's own. A
            ``function`` in float32 is by default allowed what any library may differ by, ``PEER_RELATIVE``.
    """
    dtypes = [d for d in spec.dtypes if dtypes is None or d in dtypes]
    # An interpreter takes seconds a call, and the reference is judged by little but itself.
    slow = interpreted(backend, device)
    brief = slow or backend == "reference"
    cases = spec.tagged("quick", without=("large",)) if slow else spec.cases
    quick = [c for c in cases if "quick" in c.tags]
    # Under an interpreter one case in every type and layout, so a database begins with a small one; float32 sees all.
    few = quick[:1] if slow else quick[:3] if brief else quick
    base = Target(backend, device, function=function)

    def jobs(check: str, cases: Sequence[Any], types: Sequence[torch.dtype], layouts: Sequence[str]) -> Iterator[Job]:
        if function is not None and check not in FUNCTION_CHECKS:
            return
        for case in cases:
            for dtype in types:
                for layout in layouts:
                    if dtype in dtypes:
                        allowed = PEER_RELATIVE if function and relative is None and dtype == SINGLE else relative
                        yield Job(check, spec, case, replace(base, dtype=dtype, layout=layout, relative=allowed))

    layouts = layouts_of(spec)
    dense = layouts[:-1]
    # What does not depend on the type, or is tied to one, is looked at in one.
    one = [SINGLE] if SINGLE in dtypes else dtypes[:1]
    for check in ("values", "gradients") if spec.differentiable else ("values",):
        yield from jobs(check, cases, one, layouts[:1])
        yield from jobs(check, few if brief else cases, [d for d in dtypes if d not in one], layouts[:1])
        yield from jobs(check, few if brief else cases, one if brief else dtypes, layouts[1:])
    if not spec.differentiable:
        yield from jobs("gradients", few, one, layouts[:1])
    if spec.layouts:
        yield from jobs("layout", few, one, layouts)
    # An interpreter runs programs one after another: it can show a value that was never written, not a race.
    yield from jobs("determinism", few if brief else cases, one, dense[:1] if slow else dense)
    if not slow:
        yield from jobs("determinism", quick[:1] if brief else quick, [d for d in dtypes if d not in one], layouts[:1])
    yield from jobs("aliasing", few, one, layouts[:1] if brief else layouts)
    yield from jobs("poison", few if brief else [c for c in cases if "large" not in c.tags], one, dense)
    yield from jobs("autocast", few, one if brief else dtypes, layouts[:1])
    if not brief and spec.peer:
        peered = [c for c in cases if not c.tags & {"hostile", "empty"}]
        yield from jobs("peers", peered, (SINGLE, DOUBLE), layouts[:1])
    if spec.differentiable:
        gradient = [c for c in cases if "gradient" in c.tags]
        yield from jobs("gradcheck", gradient, [DOUBLE], dense[:1] if brief else dense)
        twice = [c for c in gradient if "hostile" not in c.tags]
        yield from jobs("gradgradcheck", twice[:1] if slow else twice, [DOUBLE], dense[:1])
    # Not where results hold NaN: gradgradcheck and opcheck take NaN to differ from NaN.
    graphs = [c for c in quick if "hostile" not in c.tags]
    graphs = graphs[:2] if brief else graphs
    yield from jobs("opcheck", graphs[: 1 if slow else None], one, dense[:1] if brief else dense)
    yield from jobs("compile", graphs[: 1 if brief else 5], one, layouts[:1])
    yield from jobs("export", graphs, one, layouts[:1])
    if device == "cuda" and backend != "reference" and not spec.syncs:
        yield from jobs("capture", graphs, one, dense[:1])
    yield from jobs("error", spec.errors, one, layouts[:1])
