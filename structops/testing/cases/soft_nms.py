"""Cases of soft non-maximum suppression. Scores on a coarse grid, so that ties are common at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import soft_nms
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor
from structops.testing.cases.nms import HUGE, INVERTED, NON_FINITE, TINY, crowd, crowded, scores
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


CASES.add("boxes=12", "quick", crowd(12))
CASES.add("gaussian", "quick", crowd(40, method="gaussian"))
CASES.add("hard", "", crowd(90, method="hard", iou_threshold=0.5))
CASES.add("classes", "quick", crowd(40, 3, method="gaussian"))
for _n in (1, 2, 16, 17, 65, 257):
    CASES.add(f"boxes={_n}", "", crowd(_n))
for _method in ("linear", "gaussian", "hard"):
    CASES.add(f"{_method}-classes=7", "", crowd(150, 7, method=_method))
for _threshold in (0.0, 0.5, 1.0, 1.5):
    CASES.add(f"threshold={_threshold:g}", "", crowd(70, iou_threshold=_threshold))
for _sigma in (1e-300, 1e-3, 0.1, 3.0, 1e300):
    CASES.add(f"sigma={_sigma:g}", "", crowd(60, method="gaussian", sigma=_sigma))
for _score_threshold in (0.0, 0.3, 0.5, 1.0):  # 0.5 is a score: not greater
    CASES.add(f"score-threshold={_score_threshold:g}", "", crowd(70, score_threshold=_score_threshold))
CASES.add("cut-off", "", crowd(100, 4, max_output=9))
CASES.add("more-output-than-boxes", "", crowd(20, max_output=50))
CASES.add("no-output", "", crowd(20, max_output=0))
CASES.add("a-class-each", "", crowd(70, 2**40, method="gaussian"))
CASES.add("boxes=1000-gaussian", "large", crowd(1000, method="gaussian", levels=512))
CASES.add("boxes=1000-classes=80", "large", crowd(1000, 80, levels=512))


@CASES.add("equal-scores")
def _(g):
    return {"boxes": crowded(g, 70), "scores": torch.full((70,), 0.5, dtype=torch.float64)}


@CASES.add("duplicates")  # a weight of exactly 0
def _(g):
    return {"boxes": torch.round(crowded(g, 20)).repeat(3, 1), "scores": scores(g, 60, 4), "score_threshold": 0.0}


@CASES.add("sparse")
def _(g):
    return {"boxes": boxes(g, 200, 20000, 20000, largest=100), "scores": scores(g, 200)}


@CASES.add("extreme-classes")
def _(g):
    idxs = torch.tensor([-(2**63), 2**63 - 1, 0])[torch.randint(3, (60,), generator=g)]
    return {"boxes": crowded(g, 60), "scores": scores(g, 60), "idxs": idxs}


@CASES.add("float32-scores")  # a type of its own, whatever that of the boxes
def _(g):
    return {"boxes": crowded(g, 60), "scores": torch.rand(60, generator=g), "method": "gaussian"}


@CASES.add("no-boxes", "empty quick")
def _(g):
    return {"boxes": torch.empty(0, 4).double(), "scores": torch.empty(0).double(), "max_output": 3}


def _hostile(method: str, *rows: list[float]) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        b = torch.cat([tensor(*rows).repeat(2, 1), crowded(g, 30)])
        return {"boxes": b, "scores": scores(g, len(b), 9), "method": method, "iou_threshold": 0.1}

    return make


CASES.add("non-finite", "hostile quick", _hostile("gaussian", *NON_FINITE))
CASES.add("inverted", "hostile", _hostile("linear", *INVERTED))
CASES.add("huge-and-tiny", "hostile", _hostile("gaussian", *HUGE, *TINY))
CASES.add("huge-and-tiny-linear", "hostile", _hostile("linear", *HUGE, *TINY))


@CASES.add("hostile-scores", "hostile")
def _(g):
    s = torch.tensor([NAN, -INF, INF, 0.0, -0.0, -1.0, 0.5]).double()[torch.randint(7, (80,), generator=g)]
    return {"boxes": torch.round(crowded(g, 40)).repeat(2, 1), "scores": s, "method": "linear", "score_threshold": 0.0}


def _refused(**changes: Any) -> Callable[[], Arguments]:
    good = {"boxes": torch.rand(4, 4), "scores": torch.rand(4)}
    return lambda: {**good, **changes}


ZEROS = torch.zeros(4, dtype=torch.int64)
ERRORS = (
    ErrorCase("boxes-rank", _refused(boxes=torch.rand(4)), r"boxes must be \[N, 4\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(4, 4).int()), r"boxes must be float16"),
    ErrorCase("scores-rank", _refused(scores=torch.rand(4, 1)), r"scores must be \[N\]"),
    ErrorCase("scores-length", _refused(scores=torch.rand(3)), r"scores must have one entry a box.*3.*4"),
    ErrorCase("scores-device", _refused(scores=torch.rand(4, device="meta")), r"scores must be on the same device"),
    ErrorCase("idxs-length", _refused(idxs=ZEROS[:3]), r"idxs must .*one entry a box"),
    ErrorCase("idxs-float", _refused(idxs=ZEROS.float()), r"idxs must be an integer tensor"),
    ErrorCase("threshold-negative", _refused(iou_threshold=-0.1), r"iou_threshold must be 0 or more"),
    ErrorCase("method-unknown", _refused(method="cubic"), r"method must be one of hard, linear, gaussian"),
    ErrorCase("sigma-zero", _refused(sigma=0.0), r"sigma must be positive and finite"),
    ErrorCase("sigma-nan", _refused(sigma=NAN), r"sigma must be positive and finite"),
    ErrorCase("score-threshold-negative", _refused(score_threshold=-1.0), r"score_threshold must be 0 or more"),
    ErrorCase("max-output-negative", _refused(max_output=-1), r"max_output must be a whole number from 0"),
    ErrorCase(
        "max-output-absurd", _refused(max_output=2**40), r"max_output must be a whole number from 0 to 2147483647"
    ),
    ErrorCase("scores-list", _refused(scores=[0.5]), r"scores must be a tensor, got list"),
)

SPECS = (
    OpSpec(
        name="soft_nms",
        function=soft_nms,
        dispatcher_ops=("soft_nms",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("boxes", "scores"),
        compare="exact",
    ),
)
