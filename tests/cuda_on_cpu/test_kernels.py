"""Every CUDA kernel of the product on the case database of :mod:`structops.testing`, in every flavour.

The public functions run with the emulated kernels in the place of the CPU ones, and their results and gradients are
compared with the float64 definition. A case runs in every dtype in one layout, and in every layout in one dtype;
layouts and the order of threads go round from case to case, so that every dtype meets all of both.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from structops.testing import Case, OpSpec, specs
from structops.testing.graph_checks import require_nan
from structops.testing.run import LAYOUTS, Target, arguments_for, expected, gradients, incoming_gradients, leaves
from structops.testing.tolerances import distance

from .emulator import ORDERS, Emulator
from .operators import emulated, extra_cases, operators

SPECS = specs()


def _cases(*tags: str) -> list:
    """(spec, case) pairs as parameters: the extra cases, and those with any of the tags (without tags: all)."""
    chosen, extra = [], extra_cases()
    for spec in SPECS.values():
        mine = [c for c in spec.tagged(without=("large",)) if not tags or c.tags & set(tags)]
        chosen += [
            pytest.param(spec, c, turn, id=f"{spec.name}-{c.name}")
            for turn, c in enumerate((*mine, *extra.get(spec.name, ())))
        ]
    return chosen


def _layouts(spec: OpSpec) -> tuple[str, ...]:
    return LAYOUTS if spec.layouts else ("contiguous", "strided")


def check(spec: OpSpec, case: Case, dtype: torch.dtype, layout: str, emulator: Emulator) -> None:
    """Result and gradients of one case against the definition."""
    target = Target(dtype=dtype, layout=layout)
    where = f"{emulator.flavour}, {emulator.order} order, {target}"
    want = expected(spec, case, dtype)
    with emulated(emulator):
        arguments = arguments_for(spec, case, target)
        results = target.call(spec, arguments)
        assert [r.shape for r in results] == [r.shape for r in want.results], where
        for result, wanted, scale in zip(results, want.results, want.scales, strict=True):
            if spec.compare == "exact" or not wanted.is_floating_point():
                assert torch.equal(result.nan_to_num(-1), wanted.nan_to_num(-1)), where
            else:
                problem = distance(result, wanted, scale, spec.result_dtype(dtype))[1]
                assert problem is None, f"{where}: {problem}"
        if not spec.differentiable:
            return
        found = gradients(spec, arguments, results, incoming_gradients(results, layout))
    names = leaves(spec, arguments)
    for name, grad, wanted, scale in zip(names, found, want.gradients, want.gradient_scales, strict=True):
        problem = distance(grad, wanted, scale, dtype)[1]
        assert problem is None, f"{where}: gradient of {name}: {problem}"


def _targets(spec: OpSpec, turn: int) -> list[tuple[torch.dtype, str]]:
    """Half of the twelve combinations: kernels are templates of both, so what a dtype shows in one layout it seldom
    shows in that layout alone."""
    layouts = _layouts(spec)
    typical = torch.float32 if torch.float32 in spec.dtypes else spec.dtypes[0]
    others = [dtype for dtype in spec.dtypes if dtype != typical]
    return [
        *((typical, layout) for layout in layouts),
        *((dtype, layouts[(turn + i) % len(layouts)]) for i, dtype in enumerate(others)),
    ]


@pytest.mark.parametrize(("spec", "case", "turn"), _cases())
def test_values_in_every_order(product, spec, case, turn):
    emulator = product["plain"]
    for i, (dtype, layout) in enumerate(_targets(spec, turn)):
        emulator.order, emulator.seed = ORDERS[(turn + i) % 3], i
        check(spec, case, dtype, layout, emulator)


@pytest.mark.parametrize(("spec", "case", "turn"), _cases("quick", "hostile"))
@pytest.mark.parametrize("flavour", ["asan", "race"])
def test_no_report(product, flavour, spec, case, turn):
    emulator = product[flavour]
    dtypes = itertools.cycle(spec.dtypes[1:])  # float16 differs from bfloat16 in conversions only
    for order, layout, dtype in zip(ORDERS, _layouts(spec), dtypes, strict=False):
        emulator.order = order
        check(spec, case, dtype, layout, emulator)


@pytest.mark.parametrize(
    ("spec", "case"),
    [
        pytest.param(spec, case, id=f"{spec.name}-{case.name}")
        for spec in SPECS.values()
        if spec.name in spec.dispatcher_ops  # another's op in disguise looks at its arguments in Python
        for case in spec.errors
        if case.device == "cpu" and case.op is None and case.elsewhere == "nan"
    ],
)
def test_what_only_a_cpu_refuses_is_nan(product, spec, case):
    with emulated(product["asan"]):
        require_nan(spec, case.make(), Target())


def test_every_op_is_emulated():
    dispatched = {name for spec in SPECS.values() for name in spec.dispatcher_ops}
    assert set(operators()) == dispatched
