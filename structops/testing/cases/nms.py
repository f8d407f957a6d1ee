"""Cases of non-maximum suppression, plain and by class.

Scores on a coarse grid, so that ties are common, wherever a case does not say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import batched_nms, nms
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

PLAIN, BATCHED = CaseList(), CaseList()
Rows = tuple[list[float], ...]
Draw = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor, float]]


def scores(g: torch.Generator, n: int, levels: int = 32) -> torch.Tensor:
    """``[n]`` in [0, 1), multiples of 1 / levels (exact in every type)."""
    return torch.randint(levels, (n,), generator=g).double() / levels


def crowded(g: torch.Generator, n: int) -> torch.Tensor:
    """``[n, 4]``: jittered groups, as a detector leaves them: some eight boxes each, more where there are many."""
    centres = boxes(g, max(min(n // 8, 100), 1), 800, 600, smallest=20, largest=200)
    return centres[torch.randint(len(centres), (n,), generator=g)] + uniform(g, -8, 8, n, 4)


def crowd(n: int, classes: int = 0, levels: int = 32, **options: Any) -> Callable[[torch.Generator], Arguments]:
    """A case of an op of this family: :func:`crowded` boxes, of so many classes."""

    def make(g: torch.Generator) -> Arguments:
        found = {"boxes": crowded(g, n), "scores": scores(g, n, levels), **options}
        return {**found, "idxs": torch.randint(classes, (n,), generator=g)} if classes else found

    return make


def add(name: str, tags: str = "", classes: Callable[[torch.Generator, int], torch.Tensor] | None = None):
    """The same boxes as a case of both ops; by class with three classes unless told."""
    classes = classes or (lambda g, n: torch.randint(3, (n,), generator=g))

    def register(draw: Draw) -> Draw:
        def plain(g: torch.Generator) -> Arguments:
            b, s, threshold = draw(g)
            return {"boxes": b, "scores": s, "iou_threshold": threshold}

        def batched(g: torch.Generator) -> Arguments:
            b, s, threshold = draw(g)
            return {"boxes": b, "scores": s, "idxs": classes(g, len(b)), "iou_threshold": threshold}

        PLAIN.add(name, tags, plain)
        BATCHED.add(name, tags, batched)
        return draw

    return register


# Typical.


def _crowd(n: int, threshold: float, levels: int = 32) -> Draw:
    return lambda g: (crowded(g, n), scores(g, n, levels), threshold)


for _threshold in (0.0, 0.3, 0.5, 0.7, 1.0, 1.5):
    add(f"threshold={_threshold:g}", "quick" if _threshold in (0.0, 0.5) else "")(_crowd(120, _threshold))
for _n in (1, 2, 31, 32, 33, 63, 64, 65, 127, 129, 255, 257):  # the block edges of every backend
    add(f"boxes={_n}", "quick" if _n in (1, 65) else "")(_crowd(_n, 0.5))
add("boxes=1000")(_crowd(1000, 0.5))
add("boxes=1000-distinct-scores")(lambda g: (crowded(g, 1000), torch.randperm(1000, generator=g).double() / 1024, 0.6))
add("sparse")(lambda g: (boxes(g, 300, 20000, 20000, largest=100), scores(g, 300), 0.5))
add("boxes=5000", "large")(_crowd(5000, 0.5, 1000))
add("boxes=2000-sparse", "large")(lambda g: (boxes(g, 2000, 3000, 2000, largest=90), scores(g, 2000, 4096), 0.4))


# Ties, duplicates, touching boxes, exact thresholds.


@add("equal-scores", "quick")
def _(g):
    return crowded(g, 70), torch.full((70,), 0.5, dtype=torch.float64), 0.5


@add("signed-zeros")  # -0.0 == 0.0: a tie, broken by the index
def _(g):
    return crowded(g, 60), torch.where(torch.rand(60, generator=g) < 0.5, 0.0, -0.0).double(), 0.4


@add("infinite-scores")
def _(g):
    return crowded(g, 60), torch.where(torch.rand(60, generator=g) < 0.5, INF, -INF).double(), 0.4


@add("duplicates", "quick")
def _(g):
    return crowded(g, 20).repeat(4, 1), scores(g, 80, 4), 0.5


@add("duplicates-threshold=1")  # an IoU of 1 is not greater than 1
def _(g):
    return torch.round(crowded(g, 20)).repeat(3, 1), scores(g, 60, 4), 1.0


@add("touching", "quick")  # a grid of boxes with edges in common: their intersection is empty
def _(g):
    y, x = (v.reshape(-1).double() for v in torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"))
    return torch.stack([x, y, x + 1, y + 1], 1) * 16, scores(g, 64, 8), 0.0


@add("iou-equal-to-threshold", "quick")  # IoU exactly 1/2, 1/4, 3/4: kept at that threshold
def _(g):
    wide = tensor([0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 4, 4], [0, 0, 8, 6], [100, 0, 108, 8], [100, 0, 104, 8])
    return wide, torch.linspace(1, 0, 6, dtype=torch.float64), 0.5


@add("iou-next-to-threshold")  # 1/3 rounds differently in float32 and float64
def _(g):
    return tensor([0, 0, 2, 1], [1, 0, 3, 1], [10, 0, 12, 1], [11, 0, 13, 1]), tensor(0.9, 0.8, 0.7, 0.6), 1 / 3


@add("nested")
def _(g):
    half = torch.arange(40, 0, -1, dtype=torch.float64)[:, None]
    return 50 + torch.cat([-half, -half, half, half], 1), scores(g, 40, 5), 0.6


@add("negative-coordinates")
def _(g):
    return crowded(g, 90) - 500, scores(g, 90), 0.5


@add("zero-area", "quick")
def _(g):
    points = torch.round(uniform(g, 0, 6, 40, 2))
    b = torch.cat([points, points], 1)
    b[::4, 2] += 4  # lines
    b[1::4, 2:] += 3  # and boxes over them
    return b, scores(g, 40, 4), 0.0


@add("float32-scores")  # a type of its own, whatever that of the boxes
def _(g):
    return crowded(g, 80), torch.rand(80, generator=g), 0.5


@add("float64-scores-close")  # distinct in float64 alone
def _(g):
    return crowded(g, 80), 0.5 + torch.randperm(80, generator=g).double() * 2.0**-40, 0.5


# Empty.


@add("no-boxes", "empty quick")
def _(g):
    return torch.empty(0, 4, dtype=torch.float64), torch.empty(0, dtype=torch.float64), 0.5


# Hostile.


def _with_rows(g: torch.Generator, rows: Rows) -> torch.Tensor:
    b = crowded(g, 70)
    at = torch.randperm(70, generator=g)[: 3 * len(rows)]
    b[at] = tensor(*rows).repeat(3, 1)
    return b


NON_FINITE: Rows = (
    [NAN, 10, 100, 100],
    [10, NAN, 100, 100],
    [10, 10, NAN, 100],
    [10, 10, 100, NAN],
    [NAN, NAN, NAN, NAN],
    [-INF, -INF, INF, INF],
    [10, 10, INF, 100],
    [-INF, 10, 100, 100],
    [INF, INF, INF, INF],
)
INVERTED: Rows = ([100, 10, 10, 100], [10, 100, 100, 10], [100, 100, 10, 10], [300, 200, 100, 50])
HUGE: Rows = (
    [-1e30, -1e30, 1e30, 1e30],
    [0, 0, 1e30, 1],
    [-3e38, -3e38, 3e38, 3e38],
    [1e18, 1e18, 3e18, 3e18],
    [-1e10, -1e10, 1e10, 1e10],
    [60000, 60000, 65000, 65000],
)
TINY: Rows = ([0, 0, 1e-30, 1e-30], [0, 0, 1e-20, 1e-20], [5, 5, 5 + 1e-6, 5 + 1e-6], [0, 0, 1e-42, 1e-42])

add("nan-scores", "hostile quick")(
    lambda g: (crowded(g, 70), scores(g, 70).masked_fill(torch.rand(70, generator=g) < 0.3, NAN), 0.4)
)
add("all-nan-scores", "hostile")(lambda g: (crowded(g, 40), torch.full((40,), NAN, dtype=torch.float64), 0.4))
add("non-finite", "hostile quick")(lambda g: (_with_rows(g, NON_FINITE), scores(g, 70), 0.3))
add("inverted", "hostile quick")(lambda g: (_with_rows(g, INVERTED), scores(g, 70), 0.1))
add("inverted-threshold=0", "hostile")(lambda g: (_with_rows(g, INVERTED), scores(g, 70), 0.0))
add("huge", "hostile quick")(lambda g: (_with_rows(g, HUGE), scores(g, 70), 0.3))
add("tiny", "hostile")(lambda g: (_with_rows(g, TINY), scores(g, 70), 0.3))
add("all-nan", "hostile")(lambda g: (torch.full((50, 4), NAN, dtype=torch.float64), scores(g, 50), 0.3))
add("threshold=inf", "hostile")(lambda g: (crowded(g, 40).repeat(2, 1), scores(g, 80), INF))
add("all-hostile", "hostile")(
    lambda g: (tensor(*NON_FINITE, *INVERTED, *HUGE, *TINY).repeat(4, 1), scores(g, 92, 5), 0.0)
)


# By class only.


def _by_class(name: str, classes: Callable[[torch.Generator, int], torch.Tensor], n: int = 150, tags: str = "") -> None:
    def make(g: torch.Generator) -> Arguments:
        return {"boxes": crowded(g, n), "scores": scores(g, n), "idxs": classes(g, n), "iou_threshold": 0.5}

    BATCHED.add(name, tags, make)


def _classes(n_classes: int, dtype: torch.dtype = torch.int64) -> Callable[[torch.Generator, int], torch.Tensor]:
    return lambda g, n: torch.randint(n_classes, (n,), generator=g).to(dtype)


_by_class("one-class", lambda g, n: torch.full((n,), 7))
_by_class("a-class-each", lambda g, n: torch.randperm(n, generator=g))
_by_class("classes=80", _classes(80), 600, "quick")
_by_class("classes=1200", _classes(1200), 1500)
_by_class("sorted-classes", lambda g, n: _classes(5)(g, n).sort().values)
_by_class("negative-classes", lambda g, n: _classes(4)(g, n) - 2, tags="quick")
_by_class("classes-beyond-float64", lambda g, n: 2**62 + _classes(3)(g, n))  # equal once rounded to a float
_by_class("extreme-classes", lambda g, n: torch.tensor([-(2**63), 2**63 - 1, 0])[_classes(3)(g, n)])
for _type in (torch.uint8, torch.int8, torch.int16, torch.int32):
    _by_class(f"{str(_type).removeprefix('torch.')}-classes", _classes(4, _type))
_by_class("strided-classes", lambda g, n: _classes(4)(g, 2 * n)[::2])
_by_class("classes=80-boxes=3000", _classes(80), 3000, "large")


@BATCHED.add("negative-coordinates-apart", "quick")
def _(g):
    # Added to a coordinate, a class offset of (largest coordinate + 1) lays these boxes of different classes over
    # one another; compared as integers they never meet.
    b = tensor([-20, -20, -1, -1], [-29, -29, -10, -10], [-20, -20, -1, -1], [-11, -11, 8, 8])
    return {"boxes": b, "scores": tensor(0.9, 0.8, 0.7, 0.6), "idxs": torch.tensor([0, 1, 2, 3]), "iou_threshold": 0.1}


# Arguments that must be refused.


def _refused(columns: int, batched: bool, **changes: object) -> Callable[[], Arguments]:
    def make() -> Arguments:
        good: Arguments = {"boxes": torch.rand(4, columns), "scores": torch.rand(4), "iou_threshold": 0.5}
        if batched:
            good["idxs"] = torch.zeros(4, dtype=torch.int64)
        return {**good, **changes}

    return make


def errors(columns: int, batched: bool) -> tuple[ErrorCase, ...]:
    """Of a suppression of boxes ``[N, columns]``."""
    shape = rf"boxes must be \[N, {columns}\]"
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("boxes-rank", {"boxes": torch.rand(columns)}, shape),
        ("boxes-width", {"boxes": torch.rand(4, 9 - columns)}, shape),
        ("boxes-integer", {"boxes": torch.zeros(4, columns, dtype=torch.int32)}, r"boxes must be float16"),
        ("scores-rank", {"scores": torch.rand(4, 1)}, r"scores must be \[N\]"),
        ("scores-integer", {"scores": torch.zeros(4, dtype=torch.int64)}, r"scores must be float16"),
        ("scores-length", {"scores": torch.rand(3)}, r"scores must have one entry a box.*3.*4"),
        ("scores-device", {"scores": torch.rand(4, device="meta")}, r"scores must be on the same device as boxes"),
        ("threshold-negative", {"iou_threshold": -0.1}, r"iou_threshold must be 0 or more"),
        ("threshold-nan", {"iou_threshold": NAN}, r"iou_threshold must be 0 or more"),
    ]
    if batched:
        zeros = torch.zeros(4, dtype=torch.int64)
        cases += [
            ("idxs-rank", {"idxs": zeros[:, None]}, r"idxs must be \[N\]"),
            ("idxs-length", {"idxs": zeros[:3]}, r"idxs must .*one entry a box"),
            ("idxs-float", {"idxs": zeros.float()}, r"idxs must be an integer tensor"),
            ("idxs-bool", {"idxs": zeros.bool()}, r"idxs must be an integer tensor"),
            ("idxs-device", {"idxs": zeros.to("meta")}, r"idxs must be on the same device as boxes"),
        ]
    return tuple(ErrorCase(name, _refused(columns, batched, **changes), match) for name, changes, match in cases)


def _torchvision_nms(boxes, scores, iou_threshold):
    import torchvision

    common = torch.promote_types(boxes.dtype, scores.dtype)  # it takes no mixture
    return torchvision.ops.nms(boxes.to(common), scores.to(common), iou_threshold)


def _torchvision_per_class(boxes, scores, idxs, iou_threshold):
    """torchvision's NMS on each class by itself: its own batched_nms adds offsets, and so is not exact."""
    kept = [torch.empty(0, dtype=torch.int64, device=boxes.device)]
    for value in idxs.unique():
        members = (idxs == value).nonzero()[:, 0]
        kept.append(members[_torchvision_nms(boxes[members], scores[members], iou_threshold)])
    kept_sorted = torch.cat(kept).sort().values
    return kept_sorted[scores[kept_sorted].argsort(descending=True, stable=True)]


SPECS = (
    OpSpec(
        name="nms",
        function=nms,
        dispatcher_ops=("nms",),
        cases=tuple(PLAIN),
        errors=errors(4, batched=False),
        data=("boxes", "scores"),
        compare="exact",
        syncs=True,
        peer={"torchvision": _torchvision_nms},
    ),
    OpSpec(
        name="batched_nms",
        function=batched_nms,
        dispatcher_ops=("batched_nms",),
        cases=tuple(BATCHED),
        errors=errors(4, batched=True),
        data=("boxes", "scores"),
        compare="exact",
        syncs=True,
        peer={"torchvision": _torchvision_per_class},
    ),
)
