"""Cases of non-maximum suppression along time.

What suppression itself does has its cases in :mod:`structops.testing.cases.nms`, which these run on too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import nms_1d
from structops.testing.cases._draw import INF, NAN, CaseList, tensor, uniform
from structops.testing.cases.nms import scores
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def crowded(g: torch.Generator, n: int) -> torch.Tensor:
    """``[n, 2]``: jittered groups of some eight segments each, as a network's proposals lie."""
    centre, length = uniform(g, 0, 600, max(n // 8, 1)), uniform(g, 4, 90, max(n // 8, 1))
    ends = torch.stack([centre - length / 2, centre + length / 2], 1)
    return ends[torch.randint(len(ends), (n,), generator=g)] + uniform(g, -6, 6, n, 2)


def _crowd(n: int, threshold: float, levels: int = 32, classes: int = 0) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        found = {"segments": crowded(g, n), "scores": scores(g, n, levels), "iou_threshold": threshold}
        return {**found, "idxs": torch.randint(classes, (n,), generator=g)} if classes else found

    return make


# The quick cases are without classes: those with them are another dispatcher op.
CASES.add("segments=20", "quick", _crowd(20, 0.5))
for _threshold in (0.0, 0.3, 0.7, 1.0):
    CASES.add(f"threshold={_threshold:g}", "", _crowd(90, _threshold))
for _n in (1, 65, 400):
    CASES.add(f"segments={_n}", "", _crowd(_n, 0.5))
CASES.add("classes=3", "", _crowd(120, 0.4, classes=3))
CASES.add("classes=200", "", _crowd(500, 0.4, classes=200))
CASES.add("segments=3000", "large", _crowd(3000, 0.5, 1000))


@CASES.add("touching-and-equal", "quick")
def _(g):
    start = torch.arange(40, dtype=torch.float64) // 2
    return {"segments": torch.stack([start, start + 1], 1), "scores": scores(g, 40, 4), "iou_threshold": 0.0}


@CASES.add("iou-equal-to-threshold")  # exactly 1/2 and 1/4
def _(g):
    found = tensor([0, 8], [0, 4], [0, 2], [100, 104], [100, 108])
    return {"segments": found, "scores": torch.linspace(1, 0, 5, dtype=torch.float64), "iou_threshold": 0.5}


@CASES.add("no-segments", "empty quick")
def _(g):
    return {"segments": torch.empty(0, 2).double(), "scores": torch.empty(0).double(), "iou_threshold": 0.5}


@CASES.add("hostile", "hostile quick")
def _(g):
    rows = [NAN, 4], [4, NAN], [-INF, INF], [0, INF], [INF, INF], [9, 3], [3, 3], [-1e30, 1e30], [0, 1e-30], [0, 1e-42]
    segments = torch.cat([tensor(*rows).repeat(3, 1), crowded(g, 30)])
    return {"segments": segments, "scores": scores(g, 60, 5), "iou_threshold": 0.0}


@CASES.add("nan-scores", "hostile")
def _(g):
    found = scores(g, 70).masked_fill(torch.rand(70, generator=g) < 0.3, NAN)
    return {"segments": crowded(g, 70), "scores": found, "iou_threshold": 0.4}


def _refused(**changes: Any) -> Callable[[], Arguments]:
    good = {"segments": torch.rand(4, 2), "scores": torch.rand(4), "iou_threshold": 0.5}
    return lambda: {**good, **changes}


ZEROS = torch.zeros(4, dtype=torch.int64)
ERRORS = (
    ErrorCase("segments-rank", _refused(segments=torch.rand(4)), r"segments must be \[N, 2\]"),
    ErrorCase("segments-width", _refused(segments=torch.rand(4, 4)), r"segments must be \[N, 2\]"),
    ErrorCase("segments-integer", _refused(segments=torch.zeros(4, 2).int()), r"segments must be float16"),
    ErrorCase("scores-length", _refused(scores=torch.rand(3)), r"scores must be \[N\], one entry a segment"),
    ErrorCase("scores-integer", _refused(scores=ZEROS), r"scores must be float16"),
    ErrorCase("scores-device", _refused(scores=torch.rand(4, device="meta")), r"scores must be on the same device"),
    ErrorCase("idxs-length", _refused(idxs=ZEROS[:3]), r"idxs must have one entry a segment, got 3 for 4"),
    ErrorCase("idxs-float", _refused(idxs=ZEROS.float()), r"idxs must be an integer tensor"),
    ErrorCase("idxs-device", _refused(idxs=ZEROS.to("meta")), r"idxs must be on the same device as segments"),
    ErrorCase("threshold-negative", _refused(iou_threshold=-0.1), r"iou_threshold must be 0 or more"),
)

SPECS = (
    OpSpec(
        name="nms_1d",
        function=nms_1d,
        dispatcher_ops=("nms",),  # a segment is a box one unit high
        cases=tuple(CASES),
        errors=ERRORS,
        data=("segments", "scores"),
        compare="exact",
    ),
)
