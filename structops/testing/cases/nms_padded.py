"""Cases of non-maximum suppression of a batch with results of fixed shape.

What suppression itself does has its cases in :mod:`structops.testing.cases.nms`; these are about the batch, what takes
part, and where the output ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import nms_padded
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor
from structops.testing.cases.nms import HUGE, INVERTED, NON_FINITE, TINY, crowded, scores
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def batch(g: torch.Generator, images: int, n: int, max_output: int, levels: int = 32, **options: Any) -> Arguments:
    """Crowded images, scores with ties."""
    return {
        "boxes": torch.stack([crowded(g, n) for _ in range(images)]),
        "scores": torch.stack([scores(g, n, levels) for _ in range(images)]),
        "iou_threshold": 0.5,
        "max_output": max_output,
        **options,
    }


def classes(g: torch.Generator, images: int, n: int, count: int = 3) -> torch.Tensor:
    return torch.randint(count, (images, n), generator=g)


def _case(name: str, tags: str, images: int, n: int, max_output: int, n_classes: int = 0, **options: Any) -> None:
    def make(g: torch.Generator) -> Arguments:
        found = batch(g, images, n, max_output, **options)
        return {**found, "idxs": classes(g, images, n, n_classes)} if n_classes else found

    CASES.add(name, tags, make)


_case("two-images", "quick", 2, 20, 8)
_case("one-image", "", 1, 130, 200)
_case("cut-off", "", 3, 150, 9)
_case("more-output-than-boxes", "", 2, 33, 70)
_case("no-output", "", 2, 40, 0)
_case("one-output", "", 3, 65, 1)
_case("one-box-each", "", 5, 1, 3)
_case("many-images", "", 70, 20, 6, 2)  # more than there are groups of masks
_case("classes", "quick", 2, 70, 40, 3)
_case("classes-cut-off", "", 3, 130, 10, 5)
_case("classes=80", "", 2, 500, 100, 80)
_case("a-class-each", "", 2, 65, 65, 2**40)
_case("threshold=0", "", 2, 129, 60, iou_threshold=0.0)
_case("threshold=1.5", "", 2, 64, 50, iou_threshold=1.5)
_case("score-threshold", "quick", 2, 60, 40, 2, score_threshold=0.5)  # a multiple of 1/32: those equal stay out
_case("score-threshold-of-none", "", 2, 60, 40, score_threshold=1.0)
_case("score-threshold=-inf", "", 2, 60, 40, score_threshold=-INF)
_case("counts", "quick", 4, 50, 30, valid=torch.tensor([50, 0, 1, 33], dtype=torch.int32))
_case("counts-out-of-range", "", 3, 50, 30, 2, valid=torch.tensor([-5, 2**40, 17]))
_case("images-2000", "large", 4, 2000, 300, levels=1000)
_case("images-2000-classes", "large", 4, 2000, 300, 80, levels=1000, score_threshold=0.05)


@CASES.add("mask-and-score-threshold", "")
def _(g):
    found = batch(g, 3, 100, 60, valid=torch.rand(3, 100, generator=g) < 0.7, score_threshold=0.2)
    found["valid"][1] = False
    return {**found, "idxs": classes(g, 3, 100).to(torch.int16)}


@CASES.add("threshold-between-float32")  # float32(0.1) > 0.1: that score takes part in float32, not in float64
def _(g):
    return {**batch(g, 1, 30, 30), "scores": torch.full((1, 30), 0.1, dtype=torch.float64), "score_threshold": 0.1}


@CASES.add("sparse-cut-off")
def _(g):
    found = batch(g, 2, 300, 120)
    return {**found, "boxes": torch.stack([boxes(g, 300, 20000, 20000, largest=100) for _ in range(2)])}


@CASES.add("strided-arguments")
def _(g):
    found = batch(g, 2, 90, 40)
    return {**found, "idxs": classes(g, 90, 4)[:, ::2].T, "valid": (torch.rand(90, 2, generator=g) < 0.8).T}


# Empty.


@CASES.add("no-boxes", "empty quick")
def _(g):
    return {**batch(g, 3, 1, 5), "boxes": torch.empty(3, 0, 4).double(), "scores": torch.empty(3, 0).double()}


@CASES.add("no-images", "empty")
def _(g):
    empty = {"boxes": torch.empty(0, 7, 4).double(), "scores": torch.empty(0, 7).double()}
    return {**batch(g, 1, 1, 5), **empty, "idxs": torch.empty(0, 7, dtype=torch.int64)}


# Hostile.


def _hostile(g: torch.Generator) -> torch.Tensor:
    """``[2, 92, 4]``"""
    return tensor(*NON_FINITE, *INVERTED, *HUGE, *TINY).repeat(8, 1).reshape(2, -1, 4)


@CASES.add("hostile", "hostile quick")
def _(g):
    b = _hostile(g)
    n = b.shape[1]
    s = scores(g, 2 * n, 5).masked_fill(torch.rand(2 * n, generator=g) < 0.2, NAN).reshape(2, n)
    return {"boxes": b, "scores": s, "iou_threshold": 0.0, "max_output": 70, "idxs": classes(g, 2, n)}


@CASES.add("nan-scores", "hostile")  # last, after -inf, but before nothing
def _(g):
    s = torch.tensor([NAN, -INF, INF, 0.0, -0.0]).double()[torch.randint(5, (3, 60), generator=g)]
    return {**batch(g, 3, 60, 50), "scores": s, "valid": torch.tensor([60, 30, 59])}


@CASES.add("nan-scores-do-not-exceed", "hostile")
def _(g):
    s = scores(g, 120).masked_fill(torch.rand(120, generator=g) < 0.3, NAN).reshape(2, 60)
    return {**batch(g, 2, 60, 50), "scores": s, "score_threshold": -INF}


@CASES.add("garbage-beyond-the-counts", "hostile")
def _(g):
    found = batch(g, 2, 64, 40, valid=torch.tensor([20, 45]))
    for image, count in enumerate((20, 45)):
        found["boxes"][image, count:] = tensor([NAN, -INF, INF, INF])
        found["scores"][image, count:] = INF
    return {**found, "idxs": classes(g, 2, 64)}


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    def make() -> Arguments:
        good = {"boxes": torch.rand(2, 4, 4), "scores": torch.rand(2, 4), "iou_threshold": 0.5, "max_output": 3}
        return {**good, **changes}

    return make


ZEROS = torch.zeros(2, 4, dtype=torch.int64)
ERRORS = (
    ErrorCase("boxes-rank", _refused(boxes=torch.rand(4, 4)), r"boxes must be \[B, N, 4\]"),
    ErrorCase("boxes-width", _refused(boxes=torch.rand(2, 4, 5)), r"boxes must be \[B, N, 4\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(2, 4, 4).int()), r"boxes must be float16"),
    ErrorCase("scores-rank", _refused(scores=torch.rand(8)), r"scores must be \[B, N\]"),
    ErrorCase("scores-length", _refused(scores=torch.rand(2, 3)), r"scores must be \[B, N\], one entry a box"),
    ErrorCase("scores-integer", _refused(scores=ZEROS), r"scores must be float16"),
    ErrorCase("scores-device", _refused(scores=torch.rand(2, 4, device="meta")), r"scores must be on the same device"),
    ErrorCase("idxs-rank", _refused(idxs=ZEROS[0]), r"idxs must be \[B, N\]"),
    ErrorCase("idxs-float", _refused(idxs=ZEROS.float()), r"idxs must be an integer tensor"),
    ErrorCase("idxs-device", _refused(idxs=ZEROS.to("meta")), r"idxs must be on the same device as boxes"),
    ErrorCase("valid-float", _refused(valid=torch.rand(2)), r"valid must be \[B\] of integers or \[B, N\] of bool"),
    ErrorCase("valid-counts-length", _refused(valid=ZEROS[0]), r"valid, of integers, must be \[B\]"),
    ErrorCase("valid-counts-rank", _refused(valid=ZEROS), r"valid, of integers, must be \[B\]"),
    ErrorCase("valid-mask-shape", _refused(valid=torch.ones(2).bool()), r"valid must be \[B, N\]"),
    ErrorCase("valid-device", _refused(valid=torch.ones(2, 4, device="meta").bool()), r"valid must be on the same dev"),
    ErrorCase("threshold-negative", _refused(iou_threshold=-0.1), r"iou_threshold must be 0 or more"),
    ErrorCase("threshold-nan", _refused(iou_threshold=NAN), r"iou_threshold must be 0 or more"),
    ErrorCase("max-output-negative", _refused(max_output=-1), r"max_output must be a whole number from 0"),
    ErrorCase(
        "max-output-absurd", _refused(max_output=2**40), r"max_output must be a whole number from 0 to 2147483647"
    ),
    ErrorCase("max-output-fraction", _refused(max_output=1.5), r"max_output must be a whole number"),
    ErrorCase("score-threshold-nan", _refused(score_threshold=NAN), r"score_threshold must be a number, got NaN"),
)


def _torchvision_loop(boxes, scores, iou_threshold, max_output, *, idxs=None, valid=None, score_threshold=None):
    """What takes its place elsewhere: image by image, class by class."""
    from structops.reference.nms_padded import taking_part
    from structops.testing.cases.nms import _torchvision_per_class

    takes = taking_part(scores, valid, score_threshold)
    indices = torch.full((len(boxes), max_output), -1)
    counts = torch.zeros(len(boxes), dtype=torch.int64)
    for image in range(len(boxes)):
        members = takes[image].nonzero()[:, 0]
        of_members = torch.zeros_like(members) if idxs is None else idxs[image, members]
        kept = _torchvision_per_class(boxes[image, members], scores[image, members], of_members, iou_threshold)
        counts[image] = min(len(kept), max_output)
        indices[image, : counts[image]] = members[kept[:max_output]]
    return indices, counts


SPECS = (
    OpSpec(
        name="nms_padded",
        function=nms_padded,
        dispatcher_ops=("nms_padded",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("boxes", "scores"),
        compare="exact",
        peer={"torchvision": _torchvision_loop},
    ),
)
