"""Cases of the intersection over union of rotated boxes: pairs that other libraries get wrong among them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from structops.ops import box_iou_rotated
from structops.testing.cases._draw import INF, NAN, CaseList, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def rotated(g: torch.Generator, n: int, extent: float = 40, smallest: float = 2, largest: float = 30) -> torch.Tensor:
    """``[n, 5]``: any angle, sides from ``smallest`` to ``largest``, centres in a square of ``extent``."""
    size = uniform(g, math.log(smallest), math.log(largest), n, 2).exp()
    return torch.cat([uniform(g, 0, extent, n, 2), size, uniform(g, -360, 360, n, 1)], 1)


def add(name: str, tags: str = "", elementwise: bool | None = None):
    """A pair of sets of boxes as a case; of as many boxes in both, elementwise in every second case unless told."""

    def register(draw: Draw) -> Draw:
        pairs = len(CASES) % 2 == 1 if elementwise is None else elementwise

        def make(g: torch.Generator) -> Arguments:
            boxes1, boxes2 = draw(g)
            return {"boxes1": boxes1, "boxes2": boxes2, "elementwise": pairs}

        CASES.add(name, tags, make)
        return draw

    return register


# Typical. Sizes at the edges of vectors, tiles and blocks.

for _n, _m in ((3, 5), (1, 1), (8, 32), (9, 33), (40, 17), (33, 129)):
    add(f"boxes={_n}x{_m}", "quick" if _n in (3, 9) else "", False)(
        lambda g, n=_n, m=_m: (rotated(g, n), rotated(g, m))  # type: ignore[misc]
    )
for _n in (1, 7, 70, 129):
    add(f"pairs={_n}", "quick" if _n == 7 else "", True)(
        lambda g, n=_n: (rotated(g, n), rotated(g, n))  # type: ignore[misc]
    )
add("boxes=100x300", "large", False)(lambda g: (rotated(g, 100, 400), rotated(g, 300, 400)))
add("pairs=5000", "large", True)(lambda g: (rotated(g, 5000), rotated(g, 5000)))
add("boxes=12x2500", "large", False)(lambda g: (rotated(g, 12, 400), rotated(g, 2500, 400)))  # two blocks of columns


# One box and its neighbours.


@add("upright-exact", "quick", False)  # IoU 1, 1/2, 1/4, 1/3, 0 (touching along a side, at a corner, apart)
def _(g):
    a = tensor([4, 4, 8, 8, 0])
    b = tensor(
        [4, 4, 8, 8, 0],
        [4, 2, 8, 4, 0],
        [2, 2, 4, 4, 0],
        [8, 4, 8, 8, 0],
        [12, 4, 8, 8, 0],
        [12, 12, 8, 8, 0],
        [40, 4, 8, 8, 0],
    )
    return a, b


@add("quarter-turns")
def _(g):
    turns = torch.tensor([-810.0, -90, 0, 90, 180, 270, 360, 450, 3600090], dtype=torch.float64)
    return tensor([3, 5, 8, 4, 0], [3, 5, 8, 4, 90]), torch.cat([tensor([3, 5, 8, 4]).expand(9, 4), turns[:, None]], 1)


@add("identical", elementwise=True)
def _(g):
    boxes = rotated(g, 30)
    return boxes, boxes


@add("turned-by-180", elementwise=True)
def _(g):
    boxes = torch.round(rotated(g, 30))
    return boxes, boxes + tensor(0, 0, 0, 0, 180)


@add("nested")
def _(g):
    shrink = 0.5 ** torch.arange(30, dtype=torch.float64)[:, None]
    outer = tensor([10, 10, 16, 12, 25]).expand(30, 5)
    return outer, torch.cat([outer[:, :2], outer[:, 2:4] * shrink, outer[:, 4:] + 30], 1)


@add("nearly-parallel", elementwise=True)  # torchvision is off by up to 0.4
def _(g):
    boxes = rotated(g, 40)
    return boxes, boxes + torch.cat([torch.zeros(40, 4), uniform(g, -25, 0, 40, 1).exp()], 1).double()


@add("sharing-a-side", elementwise=True)  # whose ends are not exact: torchvision says up to 1/3
def _(g):
    boxes = rotated(g, 40)
    angle = boxes[:, 4].deg2rad()
    beside = boxes.clone()
    beside[:, 0] += boxes[:, 2] * angle.cos()
    beside[:, 1] -= boxes[:, 2] * angle.sin()
    return boxes, beside


@add("crossing-needles")
def _(g):
    boxes = rotated(g, 25)
    boxes[:, 2] = 1000
    boxes[:, 3] = uniform(g, -9, 0, 25).exp()
    return boxes, boxes.flip(0)


@add("far-from-the-origin", elementwise=False)  # the same pairs, as far away as float32 still has pixels
def _(g):
    boxes = torch.round(rotated(g, 20))
    away = tensor([1e6, -2e6, 0, 0, 0])
    return boxes + away, boxes.flip(0) + away


@add("same-centre")
def _(g):
    boxes = rotated(g, 40)
    boxes[:, :2] = 7
    return boxes, boxes.flip(0)


# Empty.

add("none", "empty", True)(lambda g: (torch.empty(0, 5).double(), torch.empty(0, 5).double()))
add("none-of-the-first", "empty quick", False)(lambda g: (torch.empty(0, 5).double(), rotated(g, 3)))
add("none-of-the-second", "empty", False)(lambda g: (rotated(g, 3), torch.empty(0, 5).double()))


# Hostile.

ORDINARY = ([10, 10, 20, 10, 30], [500, 10, 20, 10, 0])
NO_AREA = ([10, 10, 0, 10, 30], [10, 10, 10, 0, 30], [10, 10, 0, 0, 0], [10, 10, -20, 10, 0], [10, 10, -20, -10, 0])
NON_FINITE = (
    *([NAN if i == k else v for i, v in enumerate([10, 10, 20, 10, 30])] for k in range(5)),
    *([INF if i == k else v for i, v in enumerate([10, 10, 20, 10, 30])] for k in range(5)),
    [-INF, 10, 20, 10, 30],
)
HUGE = (
    [0, 0, 1e30, 1e30, 30],
    [0, 0, 3e38, 3e38, 45],
    [0, 0, 3e38, 1, 10],
    [3e38, -3e38, 1, 1, 0],
    [1e20, 1e20, 3e20, 1e20, 80],
    [10, 10, 20, 10, 1e30],
    [60000, 60000, 5000, 60000, 60000],
)
TINY = (
    [10, 10, 1e-5, 1e-5, 30],
    [1000, 10, 1e-5, 1e-5, 0],  # torchvision: 1.0 with a box a thousand pixels away
    [10, 10, 1e-42, 1e-42, 5],
    [10, 10, 1e-20, 1e20, 45],
    [10, 10, 20, 1e-30, 31],
    [10, 10, 20, 10, 30.00001],
    [10, 10, 20, 10, 1e-42],
)


def _each_with_each(name: str, rows: tuple, tags: str = "hostile") -> None:
    def draw(g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = tensor(*ORDINARY, *rows)
        return boxes, boxes.flip(0)

    add(name, tags, False)(draw)


_each_with_each("no-area", NO_AREA, "hostile quick")
_each_with_each("non-finite", NON_FINITE)
_each_with_each("huge", HUGE)
_each_with_each("tiny", TINY)
_each_with_each("all-hostile", (*NO_AREA, *NON_FINITE, *HUGE, *TINY))
add("hostile-pairs", "hostile", True)(
    lambda g: (lambda b: (b[torch.randperm(len(b), generator=g)], b))(tensor(*NO_AREA, *NON_FINITE, *HUGE, *TINY))
)


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    return lambda: {"boxes1": torch.rand(4, 5), "boxes2": torch.rand(3, 5), "elementwise": False, **changes}


ERRORS = tuple(
    ErrorCase(name, _refused(**changes), match)
    for name, changes, match in (
        ("boxes1-rank", {"boxes1": torch.rand(5)}, r"boxes1 must be \[N, 5\]"),
        ("boxes1-width", {"boxes1": torch.rand(4, 4)}, r"boxes1 must be \[N, 5\]"),
        ("boxes1-integer", {"boxes1": torch.zeros(4, 5, dtype=torch.int32)}, r"boxes1 must be float16"),
        ("boxes2-rank", {"boxes2": torch.rand(1, 4, 5)}, r"boxes2 must be \[N, 5\]"),
        ("boxes2-width", {"boxes2": torch.rand(4, 6)}, r"boxes2 must be \[N, 5\]"),
        ("boxes2-integer", {"boxes2": torch.zeros(4, 5, dtype=torch.int64)}, r"boxes2 must be float16"),
        ("boxes2-device", {"boxes2": torch.rand(3, 5, device="meta")}, r"boxes2 must be on the same device as boxes1"),
        ("elementwise-lengths", {"elementwise": True}, r"boxes2 must have as many boxes as boxes1, got 3 for 4"),
    )
)


SPECS = (
    OpSpec(
        name="box_iou_rotated",
        function=box_iou_rotated,
        dispatcher_ops=("box_iou_rotated",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("boxes1", "boxes2"),
        compare="exact",
        widens=True,
    ),
)
