"""Cases of non-maximum suppression of rotated boxes, plain and by class.

Scores on a coarse grid, so that ties are common, wherever a case does not say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from structops.ops import batched_nms_rotated, nms_rotated
from structops.testing.cases._draw import INF, NAN, CaseList, tensor, uniform
from structops.testing.cases.box_iou_rotated import HUGE, NO_AREA, NON_FINITE, TINY, rotated
from structops.testing.cases.nms import errors, scores
from structops.testing.spec import Arguments, OpSpec

PLAIN, BATCHED = CaseList(), CaseList()
Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor, float]]


def crowded(g: torch.Generator, n: int) -> torch.Tensor:
    """``[n, 5]``: jittered groups of some eight boxes, as a detector leaves them."""
    objects = rotated(g, max(min(n // 8, 100), 1), 600, 20, 150)
    jitter = torch.cat([uniform(g, -6, 6, n, 4), uniform(g, -10, 10, n, 1)], 1)
    return objects[torch.randint(len(objects), (n,), generator=g)] + jitter


def add(name: str, tags: str = "", plain: bool = True, batched: bool = True, classes: int = 3):
    """The same boxes as a case of both ops."""

    def register(draw: Draw) -> Draw:
        def make_plain(g: torch.Generator) -> Arguments:
            b, s, threshold = draw(g)
            return {"boxes": b, "scores": s, "iou_threshold": threshold}

        def make_batched(g: torch.Generator) -> Arguments:
            b, s, threshold = draw(g)
            idxs = torch.randint(classes, (len(b),), generator=g) - 1
            return {"boxes": b, "scores": s, "idxs": idxs, "iou_threshold": threshold}

        if plain:
            PLAIN.add(name, tags, make_plain)
        if batched:
            BATCHED.add(name, tags, make_batched)
        return draw

    return register


# Typical; sizes at the edges of words, vectors and blocks.


def _crowd(n: int, threshold: float, levels: int = 32) -> Draw:
    return lambda g: (crowded(g, n), scores(g, n, levels), threshold)


for _n in (20, 1, 2, 63, 64, 65, 129):
    add(f"boxes={_n}", "quick" if _n in (1, 20) else "")(_crowd(_n, 0.4))
for _threshold in (0.0, 0.2, 0.7, 1.0, 1.5):
    add(f"threshold={_threshold:g}", batched=_threshold < 1)(_crowd(90, _threshold))
add("boxes=1500", "large")(_crowd(1500, 0.3, 1000))
add("boxes=150-sparse", "large")(lambda g: (rotated(g, 150, 1500, 20, 200), scores(g, 150), 0.2))
add("classes=80", "", plain=False, classes=80)(_crowd(300, 0.3))
add("a-class-each", plain=False, classes=10**9)(_crowd(40, 0.0))


# Ties, duplicates, touching boxes, exact thresholds.


@add("equal-scores")
def _(g):
    return crowded(g, 40), torch.full((40,), 0.5, dtype=torch.float64), 0.3


@add("signed-zeros", batched=False)  # -0.0 == 0.0: a tie, broken by the index
def _(g):
    return crowded(g, 40), torch.where(torch.rand(40, generator=g) < 0.5, 0.0, -0.0).double(), 0.3


@add("duplicates", "quick")
def _(g):
    return crowded(g, 8).repeat(3, 1), scores(g, 24, 4), 0.5


@add("duplicates-threshold=1", batched=False)  # an IoU of 1 is not greater than 1
def _(g):
    return crowded(g, 10).repeat(3, 1), scores(g, 30, 4), 1.0


@add("touching", batched=False)  # a grid of boxes with sides in common, upright and lying
def _(g):
    y, x = (v.reshape(-1).double() for v in torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))
    side = torch.full_like(x, 16)
    return torch.stack([x * 16, y * 16, side, side, (x + y) % 4 * 90], 1), scores(g, 36, 8), 0.0


@add("iou-equal-to-threshold", "quick")  # IoU exactly 1/2, turned by angles whose sines are not exact
def _(g):
    pairs = [[100 * k + x, 50, 8, h, 10 * k] for k in range(8) for x, h in ((0, 8), (0, 4))]
    return tensor(*pairs), torch.linspace(1, 0, 16, dtype=torch.float64), 0.5


@add("float32-scores", batched=False)  # a type of its own, whatever that of the boxes
def _(g):
    return crowded(g, 50), torch.rand(50, generator=g), 0.3


# Empty.


@add("no-boxes", "empty quick")
def _(g):
    return torch.empty(0, 5, dtype=torch.float64), torch.empty(0, dtype=torch.float64), 0.5


# Hostile.


def _with_rows(rows: tuple, threshold: float, n: int = 48) -> Draw:
    def draw(g: torch.Generator):
        boxes = crowded(g, n)
        at = torch.randperm(n, generator=g)[: 2 * len(rows)]
        boxes[at] = tensor(*rows).repeat(2, 1)
        return boxes, scores(g, n), threshold

    return draw


add("nan-scores", "hostile")(
    lambda g: (crowded(g, 40), scores(g, 40).masked_fill(torch.rand(40, generator=g) < 0.3, NAN), 0.3)
)
add("infinite-scores", "hostile", batched=False)(
    lambda g: (crowded(g, 40), torch.where(torch.rand(40, generator=g) < 0.5, INF, -INF).double(), 0.3)
)
add("non-finite", "hostile quick")(_with_rows(NON_FINITE, 0.2))
add("no-area", "hostile", batched=False)(_with_rows(NO_AREA, 0.0))
add("huge", "hostile", batched=False)(_with_rows(HUGE, 0.2))
add("tiny", "hostile", batched=False)(_with_rows(TINY, 0.0))
add("threshold=inf", "hostile", batched=False)(_crowd(30, INF))
add("all-hostile", "hostile")(
    lambda g: ((b := tensor(*NON_FINITE, *NO_AREA, *HUGE, *TINY).repeat(2, 1)), scores(g, len(b), 5), 0.0)
)


# By class only.


def _by_class(name: str, classes: Callable[[torch.Generator, int], torch.Tensor], tags: str = "") -> None:
    def make(g: torch.Generator) -> Arguments:
        return {"boxes": crowded(g, 60), "scores": scores(g, 60), "idxs": classes(g, 60), "iou_threshold": 0.3}

    BATCHED.add(name, tags, make)


_by_class("extreme-classes", lambda g, n: torch.tensor([-(2**63), 2**63 - 1, 0])[torch.randint(3, (n,), generator=g)])
_by_class("uint8-classes", lambda g, n: torch.randint(4, (n,), generator=g).to(torch.uint8))
_by_class("strided-classes", lambda g, n: torch.randint(4, (2 * n,), generator=g)[::2])


SPECS = (
    OpSpec(
        name="nms_rotated",
        function=nms_rotated,
        dispatcher_ops=("nms_rotated",),
        cases=tuple(PLAIN),
        errors=errors(5, batched=False),
        data=("boxes", "scores"),
        compare="exact",
        syncs=True,
    ),
    OpSpec(
        name="batched_nms_rotated",
        function=batched_nms_rotated,
        dispatcher_ops=("batched_nms_rotated",),
        cases=tuple(BATCHED),
        errors=errors(5, batched=True),
        data=("boxes", "scores"),
        compare="exact",
        syncs=True,
    ),
)
