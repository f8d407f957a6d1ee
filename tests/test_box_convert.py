"""Facts of box formats and clipping alone; what every op promises is in test_ops.py.

Both are compositions of torch's operations, the same on every backend: here they are held to their definition, which
the generic checks, running the function itself in float64, do not look at.
"""

from __future__ import annotations

import pytest
import torch

from structops import ops, testing
from structops.reference import box_convert as definition
from structops.testing.checks import identical

SPECS = testing.specs()
CASES = [(name, case.name) for name in ("box_convert", "clip_boxes") for case in SPECS[name].cases]


def arguments(name: str, case: str, dtype: torch.dtype) -> dict:
    found = SPECS[name].case(case).draw()
    return {**found, "boxes": found["boxes"].to(dtype)}


@pytest.mark.parametrize(("name", "case"), CASES, ids="-".join)
def test_values_are_the_definitions(name, case):
    for dtype in SPECS[name].dtypes:
        given = arguments(name, case, dtype)
        assert identical(getattr(ops, name)(**given), getattr(definition, name)(**given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "case"), CASES, ids="-".join)
def test_values_are_torchvisions_to_the_bit(name, case, dtype):
    pytest.importorskip("torchvision")
    given = arguments(name, case, dtype)
    if len(given["boxes"]):
        assert identical(getattr(ops, name)(**given), SPECS[name].peer["torchvision"](**given))
