"""Cases of sampling positive and negative anchors. There is no peer: torchvision's sampler draws other numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import sample_matches
from structops.testing.cases._draw import NAN, CaseList
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
Generator = torch.Generator


def drawn_matches(g: Generator, shape: tuple[int, ...], positive: float = 0.3, negative: float = 0.5) -> torch.Tensor:
    """Shares of positive (0 or more) and negative (-1) anchors; the others are -2."""
    u = torch.rand(shape, generator=g)
    found = torch.where(u < positive, torch.randint(5, shape, generator=g), -2)
    return torch.where((u >= positive) & (u < positive + negative), -1, found)


def arguments(
    g: Generator, shape: tuple[int, ...], *shares: float, dtype: torch.dtype = torch.int64, **rest: object
) -> Arguments:
    return {"matches": drawn_matches(g, shape, *shares).to(dtype), "num_samples": 16, "seed": 7, **rest}


def drawn(*shape: int, shares: tuple[float, ...] = (), **rest: Any) -> Callable[[Generator], Arguments]:
    return lambda g: arguments(g, shape, *shares, **rest)


CASES.add("small", "quick", drawn(40, num_samples=8))
CASES.add("batch", "quick", drawn(3, 60))
CASES.add("few-positive", "quick", drawn(2, 80, shares=(0.05, 0.9)))
CASES.add("few-negative", "", drawn(2, 80, shares=(0.6, 0.05)))
CASES.add("none-positive", "", drawn(2, 50, shares=(0.0, 1.0)))
CASES.add("none-negative", "", drawn(2, 50, shares=(1.0, 0.0)))
CASES.add("none-of-either", "", drawn(2, 50, shares=(0.0, 0.0)))
CASES.add("all-of-them", "", drawn(2, 20, num_samples=40))
for _fraction in (0.0, 0.25, 0.3, 1.0):  # 0.3 * 16 = 4.8: at most 4
    CASES.add(f"positive_fraction={_fraction}", "", drawn(2, 100, positive_fraction=_fraction))
for _n in (1, 255, 257, 1025):
    CASES.add(f"anchors={_n}", "", drawn(_n))
CASES.add("one-sample", "", drawn(2, 30, num_samples=1, positive_fraction=1.0))
CASES.add("most-samples", "", drawn(3000, num_samples=2048))
for _seed in (0, -1, 2**63 - 1, -(2**63)):
    CASES.add(f"seed={_seed}", "", drawn(50, seed=_seed))
CASES.add("seed-as-tensor", "quick", lambda g: arguments(g, (2, 40), seed=torch.tensor([2**40 + 1])))
for _dtype in (torch.int8, torch.int32):
    CASES.add(f"{str(_dtype)[6:]}-matches", "", drawn(2, 40, dtype=_dtype))
CASES.add("strided-matches", "", lambda g: {"matches": drawn_matches(g, (30, 4)).T[::2], "num_samples": 9, "seed": 1})
CASES.add("pyramid", "large", drawn(2, 268_569, shares=(0.001, 0.98), num_samples=256))

CASES.add("no-anchors", "empty quick", drawn(2, 0))
CASES.add("no-images", "empty", drawn(0, 5))


@CASES.add("far-from-labels", "hostile")  # whatever is below -1 is not sampled, whatever is above -1 is positive
def _(g):
    far = torch.tensor([-(2**63), -(2**32) - 1, -3, -2, -1, 0, 2**31, 2**32 - 1, 2**63 - 1])
    return {"matches": far.repeat(3), "num_samples": 12, "seed": 3}


def _refused(**changes: object) -> Callable[[], Arguments]:
    return lambda: {"matches": torch.zeros(2, 5, dtype=torch.int64), "num_samples": 4, "seed": 0} | changes


ERRORS = tuple(
    ErrorCase(name, _refused(**changes), match)
    for name, changes, match in (
        ("matches-rank", {"matches": torch.zeros(1, 2, 3, dtype=torch.int64)}, r"matches must be \[N\] or \[B, N\]"),
        ("matches-float", {"matches": torch.zeros(5)}, r"matches must be an integer tensor"),
        ("matches-bool", {"matches": torch.zeros(5, dtype=torch.bool)}, r"matches must be an integer tensor"),
        ("num_samples-zero", {"num_samples": 0}, r"num_samples must be 1 to 2048, got 0"),
        ("num_samples-many", {"num_samples": 2049}, r"num_samples must be 1 to 2048, got 2049"),
        ("positive_fraction-negative", {"positive_fraction": -0.1}, r"positive_fraction must be 0 to 1"),
        ("positive_fraction-above-one", {"positive_fraction": 1.1}, r"positive_fraction must be 0 to 1"),
        ("positive_fraction-nan", {"positive_fraction": NAN}, r"positive_fraction must be a number, got NaN"),
        ("seed-float", {"seed": 1.5}, r"seed must be an integer of 64 bits"),
        ("seed-too-large", {"seed": 2**63}, r"seed must be an integer of 64 bits"),
        ("seed-several", {"seed": torch.zeros(2, dtype=torch.int64)}, r"seed must be one int64 number"),
        ("seed-int32", {"seed": torch.tensor(3, dtype=torch.int32)}, r"seed must be one int64 number"),
        ("seed-device", {"seed": torch.zeros(1, dtype=torch.int64, device="meta")}, r"seed must be on the same device"),
    )
)

SPECS = (
    OpSpec(
        name="sample_matches",
        function=sample_matches,
        dispatcher_ops=("sample_matches",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=(),  # integers, whatever the type under test
        compare="exact",
        dtypes=(torch.float32, torch.float64),
    ),
)
