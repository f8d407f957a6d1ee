"""Cases of matching anchors to ground truths.

Anchors lie around the ground truths, so that every kind of match occurs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import match_boxes
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
Generator = torch.Generator
Make = Callable[[Generator], Arguments]
Rows = tuple[list[float], ...]


def around(g: Generator, gt: torch.Tensor, n: int) -> torch.Tensor:
    """``[n, 4]``: ground truths moved a little, a lot, or out of the way."""
    chosen = gt[torch.randint(len(gt), (n,), generator=g)]
    size = (chosen[:, 2:] - chosen[:, :2]).repeat(1, 2)
    amount = torch.tensor([0.05, 0.2, 1.0], dtype=torch.float64)[torch.randint(3, (n, 1), generator=g)]
    return chosen + amount * size * uniform(g, -1, 1, n, 4)


def arguments(gt: torch.Tensor, anchors: torch.Tensor, high=0.7, low=0.3, low_quality=False, **rest) -> Arguments:
    found = {"gt": gt, "anchors": anchors, "high_threshold": high, "low_threshold": low}
    return {**found, "allow_low_quality_matches": low_quality, **rest}


def drawn(truths: int, anchors: int, *rule: Any) -> Make:
    def make(g: Generator) -> Arguments:
        gt = boxes(g, truths, 400, 300, smallest=10, largest=120)
        return arguments(gt, around(g, gt, anchors), *rule)

    return make


def batch(images: int, truths: int, anchors: int, shared: bool, *rule: Any, **rest: Any) -> Make:
    def make(g: Generator) -> Arguments:
        gt = boxes(g, images * truths, 400, 300, smallest=10, largest=120).view(images, truths, 4)
        each = [around(g, t, anchors) for t in gt]
        return arguments(gt, each[0] if shared else torch.stack(each), *rule, **rest)

    return make


# Typical.

CASES.add("small", "quick", drawn(3, 20, 0.7, 0.3, True))
CASES.add("batch-padded", "quick", batch(3, 4, 30, True, 0.7, 0.3, True, valid=torch.tensor([2, 0, 4])))
for _high, _low in ((0.7, 0.3), (0.5, 0.4), (0.5, 0.5)):
    for _restore in (False, True):
        _name = f"thresholds={_high}-{_low}{'-low-quality' if _restore else ''}"
        CASES.add(_name, "", drawn(12, 150, _high, _low, _restore))
for _n in (1, 17, 255, 257, 1023, 1025):  # the block edges of every backend
    CASES.add(f"anchors={_n}", "quick" if _n == 17 else "", drawn(5, _n, 0.5, 0.4, True))
CASES.add("one-ground-truth", "", drawn(1, 60, 0.5, 0.4, True))
CASES.add("more-ground-truths-than-anchors", "", drawn(70, 20, 0.5, 0.5, True))
CASES.add("batch", "", batch(3, 6, 40, False, 0.5, 0.4, False))
CASES.add(
    "batch-padded-of-its-own-anchors",
    "quick",
    batch(3, 5, 25, False, 0.5, 0.5, True, valid=torch.tensor([5, 1, 3], dtype=torch.int32)),
)
CASES.add(
    "valid-out-of-range",
    "",
    batch(4, 3, 20, True, 0.7, 0.3, True, valid=torch.tensor([-1, 4, 2**40, -(2**40)])),
)
CASES.add(
    "valid-of-a-type-that-cannot-hold-their-number",
    "",
    batch(2, 130, 9, True, 0.7, 0.3, True, valid=torch.tensor([127, -128], dtype=torch.int8)),
)
CASES.add("large", "large", drawn(60, 20_000, 0.7, 0.3, True))


# Ties, exact thresholds.


def _grid(n: int) -> torch.Tensor:
    """``[n * n, 4]`` boxes 20 wide, 10 apart: an inner one has the same IoU with several of its neighbours."""
    y, x = (v.reshape(-1).double() for v in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
    return torch.stack([x, y, x + 2, y + 2], 1) * 10


@CASES.add("ties", "quick")  # between ground truths the first; between anchors all
def _(g):
    grid = _grid(5)
    return arguments(grid[[12, 12, 6, 18]] + 5, grid.repeat(2, 1), 0.7, 0.1, True)


@CASES.add("duplicates")
def _(g):
    gt = torch.round(boxes(g, 6, 400, 300, smallest=10)).repeat(3, 1)
    return arguments(gt, torch.round(around(g, gt, 60)).repeat(2, 1), 1.0, 0.5, True)


@CASES.add("iou-equal-to-threshold")  # 7 / 10 and 3 / 10 as float32 rounds them are not those of float64
def _(g):
    anchors = tensor(*([0, 0, w, 1] for w in range(11)))
    return arguments(tensor([0, 0, 10, 1]), anchors, 0.7, 0.3)


for _name, _thresholds in {"0-0": (0.0, 0.0), "1-0": (1.0, 0.0), "2-1.5": (2.0, 1.5), "inf-0.5": (INF, 0.5)}.items():
    CASES.add(f"thresholds={_name}", "", drawn(4, 40, *_thresholds))


@CASES.add("a-ground-truth-that-meets-no-anchor")  # its best is 0, which every anchor attains that does not meet it
def _(g):
    made = drawn(4, 40, 0.7, 0.3, True)(g)
    return {**made, "gt": torch.cat([made["gt"], tensor([900, 900, 950, 950])])}


@CASES.add("touching")
def _(g):
    return arguments(tensor([0, 0, 10, 10]), tensor([10, 0, 20, 10], [0, 10, 10, 20], [-9, -9, 0, 0]), 0.5, 0.1, True)


@CASES.add("negative-coordinates")
def _(g):
    made = drawn(6, 60, 0.5, 0.4, True)(g)
    return {**made, "gt": made["gt"] - 700, "anchors": made["anchors"] - 700}


@CASES.add("mixed-types")  # float32 ground truths whatever the anchors: compared in the wider
def _(g):
    made = drawn(6, 60, 0.5, 0.4, True)(g)
    return {**made, "gt": made["gt"].float()}


# Empty.

NONE = torch.empty(0, 4, dtype=torch.float64)
CASES.add("no-ground-truths", "empty quick", lambda g: arguments(NONE, boxes(g, 9, 90, 90), 0.5, 0.4, True))
CASES.add("no-anchors", "empty", lambda g: arguments(boxes(g, 3, 90, 90), NONE, 0.5, 0.4, True))
CASES.add("nothing", "empty", lambda g: arguments(NONE, NONE))
CASES.add(
    "no-images",
    "empty",
    lambda g: arguments(NONE.view(0, 1, 4), boxes(g, 5, 90, 90), 0.5, 0.4, True, valid=torch.empty(0).long()),
)
CASES.add(
    "no-ground-truths-in-a-batch",
    "empty",
    lambda g: arguments(NONE.view(2, 0, 4), boxes(g, 5, 90, 90), 0.0, -1.0, True, valid=torch.zeros(2).long()),
)


# Hostile.

HOSTILE: dict[str, Rows] = {
    "non-finite": (
        [NAN, 10, 100, 100],
        [10, NAN, 100, 100],
        [10, 10, NAN, 100],
        [10, 10, 100, NAN],
        [-INF, -INF, INF, INF],
        [10, 10, INF, 100],
        [INF, INF, INF, INF],
    ),
    "inverted": ([100, 10, 10, 100], [10, 100, 100, 10], [100, 100, 10, 10]),
    "zero-area": ([10, 10, 10, 10], [10, 10, 50, 10], [0, 0, 0, 0], [10, 10, 10, 50]),
    "huge": ([-3e38, -3e38, 3e38, 3e38], [0, 0, 1e30, 1], [-1e18, -1e18, 1e18, 1e18], [0, 0, 60000, 60000]),
    "tiny": ([0, 0, 1e-30, 1e-30], [5, 5, 5 + 1e-6, 5 + 1e-6], [0, 0, 1e-42, 1e-42]),
}


def _hostile(rows: Rows, on: str) -> Make:
    def make(g: Generator) -> Arguments:
        made = drawn(5, 40, 0.5, 0.3, True)(g)
        for name in ("gt", "anchors"):
            if name in on:
                made[name] = torch.cat([made[name][:3], tensor(*rows), made[name][3:]])
        return made

    return make


for _name, _rows in HOSTILE.items():
    CASES.add(f"{_name}", "hostile quick" if _name == "zero-area" else "hostile", _hostile(_rows, "gt, anchors"))
CASES.add("non-finite-ground-truths", "hostile", _hostile(HOSTILE["non-finite"], "gt"))
CASES.add("non-finite-anchors", "hostile", _hostile(HOSTILE["non-finite"], "anchors"))
CASES.add("all-nan", "hostile", lambda g: arguments(tensor([NAN] * 4), tensor([NAN] * 4, [NAN] * 4), 0.5, 0.3, True))


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    return lambda: arguments(torch.rand(2, 3, 4), torch.rand(5, 4)) | changes


ERRORS = tuple(
    ErrorCase(name, _refused(**changes), match)
    for name, changes, match in (
        ("gt-rank", {"gt": torch.rand(4)}, r"gt must be \[M, 4\] or \[B, M, 4\]"),
        ("gt-width", {"gt": torch.rand(2, 5)}, r"gt must be \[M, 4\]"),
        ("gt-integer", {"gt": torch.zeros(2, 4, dtype=torch.int64)}, r"gt must be float16"),
        ("anchors-rank", {"anchors": torch.rand(1, 1, 5, 4)}, r"anchors must be \[N, 4\] or \[B, N, 4\]"),
        ("anchors-width", {"anchors": torch.rand(4, 3)}, r"anchors must be \[N, 4\]"),
        ("anchors-integer", {"anchors": torch.zeros(2, 4, dtype=torch.int32)}, r"anchors must be float16"),
        ("anchors-images", {"anchors": torch.rand(3, 5, 4)}, r"anchors \[B, N, 4\] go with gt .* 3 for 2"),
        ("anchors-of-images", {"gt": torch.rand(3, 4), "anchors": torch.rand(1, 5, 4)}, r"anchors .* go with gt"),
        ("anchors-device", {"anchors": torch.rand(5, 4, device="meta")}, r"anchors must be on the same device as gt"),
        ("thresholds-order", {"high_threshold": 0.2}, r"low_threshold must be at most high_threshold"),
        ("threshold-nan", {"low_threshold": NAN}, r"low_threshold must be at most high_threshold"),
        ("valid-number", {"valid": 3}, r"valid must be a tensor, got int"),
        ("valid-rank", {"valid": torch.zeros(2, 1, dtype=torch.int64)}, r"valid must be \[B\]"),
        ("valid-length", {"valid": torch.zeros(3, dtype=torch.int64)}, r"valid must be \[B\]"),
        ("valid-unbatched", {"gt": torch.rand(3, 4), "valid": torch.tensor([3])}, r"valid must be \[B\] and go with"),
        ("valid-float", {"valid": torch.zeros(2)}, r"valid must be an integer tensor"),
        ("valid-device", {"valid": torch.zeros(2, dtype=torch.int64, device="meta")}, r"valid must be on the same dev"),
    )
)


def torchvision_matcher(gt, anchors, high_threshold, low_threshold, allow_low_quality_matches=False, valid=None):
    """torchvision's Matcher, image by image; those without a ground truth, which it refuses, are all background."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    common = torch.promote_types(gt.dtype, anchors.dtype)  # of a mixture it would take areas in each one's own type
    gt, anchors = gt.to(common), anchors.to(common)
    matcher = Matcher(high_threshold, low_threshold, allow_low_quality_matches)
    images = gt if gt.dim() == 3 else gt[None]
    counts = [images.shape[1]] * len(images) if valid is None else valid.long().clamp(0, images.shape[1]).tolist()
    matches, ious = [], []
    for i, (truths, count) in enumerate(zip(images, counts, strict=True)):
        mine = anchors[i] if anchors.dim() == 3 else anchors
        if count:
            iou = box_iou(truths[:count], mine)
            matches.append(matcher(iou))
            ious.append(iou.max(0).values)
        else:
            matches.append(torch.full((len(mine),), matcher.BELOW_LOW_THRESHOLD, dtype=torch.int64))
            ious.append(torch.zeros(len(mine), dtype=gt.dtype))
    found = torch.stack(matches), torch.stack(ious)
    return found if gt.dim() == 3 else tuple(t[0] for t in found)


SPECS = (
    OpSpec(
        name="match_boxes",
        function=match_boxes,
        dispatcher_ops=("match_boxes",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("gt", "anchors"),
        compare="exact",
        widens=True,
        peer={"torchvision": torchvision_matcher},
    ),
)
