"""Cases of matrix NMS. Scores on a coarse grid, so that ties are common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import matrix_nms
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor
from structops.testing.cases.nms import HUGE, INVERTED, NON_FINITE, TINY, crowd, crowded, scores
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def masks(g: torch.Generator, n: int, pixels: int = 60) -> torch.Tensor:
    """``[n, n]`` overlaps of random sets of pixels, every fourth the same as its neighbour."""
    m = (torch.rand(n, pixels, generator=g) < 0.4).double()
    m[1::4] = m[::4][: len(m[1::4])]
    both = m @ m.T
    return both / (m.sum(1)[:, None] + m.sum(1) - both)


def _given(n: int, classes: int = 0, **options: Any) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        found = {"boxes": None, "scores": scores(g, n), "ious": masks(g, n), **options}
        return {**found, "idxs": torch.randint(classes, (n,), generator=g)} if classes else found

    return make


CASES.add("boxes=12", "quick", crowd(12))
CASES.add("classes-linear", "quick", crowd(40, 3, kernel="linear"))
CASES.add("ious", "quick", _given(20))
CASES.add("linear", "", crowd(90, kernel="linear"))
for _n in (1, 2, 17, 64, 129, 300):
    CASES.add(f"boxes={_n}", "", crowd(_n))
CASES.add("classes=7", "", crowd(150, 7))
CASES.add("a-class-each", "", crowd(70, 2**40))
for _sigma in (1e-300, 1e-3, 0.5, 100.0, 1e300):
    CASES.add(f"sigma={_sigma:g}", "", crowd(60, sigma=_sigma))
CASES.add("ious-linear", "", _given(70, kernel="linear"))
CASES.add("ious-classes", "", _given(140, 3))
CASES.add("boxes=1500", "large", crowd(1500, levels=512))
CASES.add("boxes=1500-classes=80-linear", "large", crowd(1500, 80, levels=512, kernel="linear"))


@CASES.add("equal-scores")
def _(g):
    return {"boxes": crowded(g, 70), "scores": torch.full((70,), 0.5, dtype=torch.float64)}


@CASES.add("duplicates")  # overlaps of exactly 1
def _(g):
    return {"boxes": torch.round(crowded(g, 20)).repeat(3, 1), "scores": scores(g, 60, 4)}


@CASES.add("duplicates-linear")  # 1 - 1 over 1 - 1
def _(g):
    return {"boxes": torch.round(crowded(g, 20)).repeat(3, 1), "scores": scores(g, 60, 4), "kernel": "linear"}


@CASES.add("sparse")
def _(g):
    return {"boxes": boxes(g, 200, 20000, 20000, largest=100), "scores": scores(g, 200)}


@CASES.add("extreme-classes")
def _(g):
    idxs = torch.tensor([-(2**63), 2**63 - 1, 0])[torch.randint(3, (60,), generator=g)]
    return {"boxes": crowded(g, 60), "scores": scores(g, 60), "idxs": idxs}


@CASES.add("float32-scores")  # a type of its own, whatever that of the boxes
def _(g):
    return {"boxes": crowded(g, 60), "scores": torch.rand(60, generator=g)}


@CASES.add("no-boxes", "empty quick")
def _(g):
    return {"boxes": torch.empty(0, 4).double(), "scores": torch.empty(0).double()}


@CASES.add("no-masks", "empty")
def _(g):
    return {"boxes": None, "scores": torch.empty(0).double(), "ious": torch.empty(0, 0).double()}


def _hostile(kernel: str, *rows: list[float]) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        b = torch.cat([tensor(*rows).repeat(2, 1), crowded(g, 30)])
        return {"boxes": b, "scores": scores(g, len(b), 9), "kernel": kernel}

    return make


CASES.add("non-finite", "hostile quick", _hostile("gaussian", *NON_FINITE))
CASES.add("inverted", "hostile", _hostile("linear", *INVERTED))
CASES.add("huge-and-tiny", "hostile", _hostile("gaussian", *HUGE, *TINY))


@CASES.add("hostile-scores", "hostile")
def _(g):
    s = torch.tensor([NAN, -INF, INF, 0.0, -0.0, -1.0, 0.5]).double()[torch.randint(7, (80,), generator=g)]
    return {"boxes": torch.round(crowded(g, 40)).repeat(2, 1), "scores": s}


@CASES.add("hostile-ious", "hostile")
def _(g):
    wild = torch.tensor([NAN, -INF, INF, 0.0, -1.0, 2.0, 0.5]).double()[torch.randint(7, (40, 40), generator=g)]
    return {"boxes": None, "scores": scores(g, 40), "ious": wild, "kernel": "linear"}


def _refused(**changes: Any) -> Callable[[], Arguments]:
    good = {"boxes": torch.rand(4, 4), "scores": torch.rand(4)}
    return lambda: {**good, **changes}


ZEROS = torch.zeros(4, dtype=torch.int64)
ERRORS = (
    ErrorCase("boxes-width", _refused(boxes=torch.rand(4, 5)), r"boxes must be \[N, 4\]"),
    ErrorCase("boxes-length", _refused(boxes=torch.rand(3, 4)), r"boxes must be \[N, 4\].* for 4"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(4, 4).int()), r"boxes must be float16"),
    ErrorCase("boxes-device", _refused(boxes=torch.rand(4, 4, device="meta")), r"boxes must be on the same device"),
    ErrorCase("nothing", _refused(boxes=None), r"give boxes or ious"),
    ErrorCase("both", _refused(ious=torch.rand(4, 4)), r"give boxes or ious"),
    ErrorCase("ious-shape", _refused(boxes=None, ious=torch.rand(4, 3)), r"ious must be \[N, N\]"),
    ErrorCase("ious-integer", _refused(boxes=None, ious=torch.zeros(4, 4).int()), r"ious must be float16"),
    ErrorCase("scores-rank", _refused(scores=torch.rand(4, 1)), r"scores must be \[N\]"),
    ErrorCase("scores-integer", _refused(scores=ZEROS), r"scores must be float16"),
    ErrorCase("idxs-length", _refused(idxs=ZEROS[:3]), r"idxs must .*one entry a score"),
    ErrorCase("idxs-float", _refused(idxs=ZEROS.float()), r"idxs must be an integer tensor"),
    ErrorCase("kernel-unknown", _refused(kernel="cubic"), r"kernel must be one of linear, gaussian"),
    ErrorCase("sigma-zero", _refused(sigma=0.0), r"sigma must be positive and finite"),
    ErrorCase("sigma-infinite", _refused(sigma=INF), r"sigma must be positive and finite"),
)

SPECS = (
    OpSpec(
        name="matrix_nms",
        function=matrix_nms,
        dispatcher_ops=("matrix_nms",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("boxes", "scores"),
        compare="exact",
    ),
)
