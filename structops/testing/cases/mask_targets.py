"""Cases of the targets of a mask head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import mask_targets, polygon_mask_targets
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, features, tensor
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def bitmaps(g: torch.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """``[G, H, W]`` uint8: an ellipse each."""
    centre = torch.rand(count, 2, 1, 1, generator=g)
    radius = 0.1 + 0.4 * torch.rand(count, 2, 1, 1, generator=g)
    y = (torch.arange(height).view(-1, 1) / height - centre[:, 0]) / radius[:, 0]
    x = (torch.arange(width) / width - centre[:, 1]) / radius[:, 1]
    return (x * x + y * y < 1).to(torch.uint8)


def _drawn(
    count: int, size: Any, objects: int = 3, image: tuple[int, int] = (20, 26), draw: Any = bitmaps, **sizes: float
) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        return {
            "gt_masks": draw(g, objects, *image).double(),
            "boxes": boxes(g, count, image[1], image[0], **sizes),
            "matched": torch.randint(objects, (count,), generator=g),
            "size": size,
        }

    return make


def _stored(dtype: torch.dtype) -> Callable[[torch.Generator], Arguments]:
    """In a type of its own, so that results are of the boxes' type."""

    def make(g: torch.Generator) -> Arguments:
        drawn = _drawn(5, (7, 9))(g)
        return {**drawn, "gt_masks": drawn["gt_masks"].to(dtype)}

    return make


CASES.add("boxes=3", "quick", _drawn(3, 4))
CASES.add("uint8", "", _stored(torch.uint8))
CASES.add("bool", "", _stored(torch.bool))
CASES.add("oblong", "quick", _drawn(4, (3, 8)))
CASES.add("size=1", "", _drawn(4, 1))
CASES.add("size=28", "", _drawn(2, 28))
CASES.add("smaller-than-a-pixel", "", _drawn(6, 5, smallest=0.01, largest=1.5))
CASES.add("larger-than-the-image", "", _drawn(6, 5, smallest=20.0, largest=90.0))
CASES.add("numbers", "", _drawn(5, 6, draw=lambda g, *shape: features(g, 1, *shape)[0]))
CASES.add("one-pixel", "", _drawn(4, 3, image=(1, 1), smallest=0.2, largest=3.0))
CASES.add("one-row", "", _drawn(4, 3, image=(1, 40)))
CASES.add("boxes=70", "", _drawn(70, 2, objects=9))
CASES.add("training", "large", _drawn(40, 28, objects=6, image=(120, 200)))
CASES.add("size=56", "large", _drawn(9, 56, objects=2, image=(100, 60)))


@CASES.add("int32-matched")
def _(g):
    drawn = _drawn(4, 5)(g)
    return {**drawn, "matched": drawn["matched"].int()}


@CASES.add("no-boxes", "empty quick")
def _(g):
    return {**_drawn(0, 4)(g)}


@CASES.add("nothing", "empty")
def _(g):
    return {**_drawn(0, 4)(g), "gt_masks": torch.empty(0, 20, 26).double()}


@CASES.add("no-pixels", "empty")
def _(g):
    return {**_drawn(3, 4)(g), "gt_masks": torch.empty(3, 0, 7).double()}


def _hostile(*rows: list[float]) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        return {**_drawn(len(rows), 3)(g), "boxes": tensor(*rows)}

    return make


CASES.add("non-finite", "hostile quick", _hostile([NAN, 0, 9, 9], [0, 0, INF, 9], [0, -INF, 9, 9], [1, 2, 9, 9]))
CASES.add("inverted", "hostile", _hostile([9, 9, 2, 3], [5, 5, 5, 5], [-7, 3, -7, 12]))
CASES.add("huge", "hostile", _hostile([0, 0, 1e9, 5], [-1e30, -1e30, 1e30, 1e30], [1e9, 0, 2e9, 3]))


@CASES.add("non-finite-masks", "hostile")
def _(g):
    drawn = _drawn(5, 6)(g)
    drawn["gt_masks"][0, 4, 4], drawn["gt_masks"][1, 5], drawn["gt_masks"][2, 9, 9] = NAN, INF, -INF
    return drawn


def _refused(**changes: Any) -> Callable[[], Arguments]:
    zeros = torch.zeros(4, dtype=torch.int64)
    good = {"gt_masks": torch.rand(2, 9, 9), "boxes": torch.rand(4, 4), "matched": zeros, "size": 3}
    return lambda: {**good, **changes}


INDICES = torch.tensor([0, 1, 0, 1])
ERRORS = (
    ErrorCase("masks-rank", _refused(gt_masks=torch.rand(9, 9)), r"gt_masks must be \[G, H, W\]"),
    ErrorCase("masks-integer", _refused(gt_masks=torch.zeros(2, 9, 9).int()), r"gt_masks must be bool, uint8"),
    ErrorCase("boxes-width", _refused(boxes=torch.rand(4, 5)), r"boxes must be \[K, 4\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(4, 4).int()), r"boxes must be float16"),
    ErrorCase("matched-length", _refused(matched=INDICES[:3]), r"matched must be \[K\].* 4 boxes"),
    ErrorCase("matched-float", _refused(matched=INDICES.float()), r"matched must be an integer tensor"),
    ErrorCase("matched-device", _refused(matched=INDICES.to("meta")), r"matched must be on the same device"),
    ErrorCase("matched-high", _refused(matched=INDICES + 1), r"matched\[1\] is 2, but must be in \[0, 2\)", "cpu"),
    ErrorCase("matched-negative", _refused(matched=INDICES - 1), r"matched\[0\] is -1", "cpu"),
    ErrorCase("size-zero", _refused(size=0), r"size must be 1 to 32768"),
    ErrorCase("size-three", _refused(size=(3, 3, 3)), r": size must be an int or a pair"),
    ErrorCase("size-tensor", _refused(size=torch.tensor(3)), r": size must be an int or a pair"),
    ErrorCase("masks-none", _refused(gt_masks=None), r"gt_masks must be a tensor .*, got NoneType"),
    ErrorCase("masks-crowd", _refused(gt_masks=[{"counts": "01", "size": [9, 9]}]), r"gt_masks must be .*, got dict"),
    ErrorCase(
        "masks-pairs", _refused(gt_masks=[[[[0, 0], [4, 0], [4, 4], [0, 4]]]]), r"in one flat list, got \[\[0, 0"
    ),
    ErrorCase("masks-text", _refused(gt_masks=[[["x", "y"]]]), r"a polygon must be x and y in turns"),
    ErrorCase("masks-flat", _refused(gt_masks=[[1.0, 2, 3, 4, 5, 6]]), r"in one flat list, got 1.0"),
    ErrorCase("polygons-boxes", _refused(gt_masks=[[[0, 0, 4, 0, 4, 4]]], boxes=None), r"boxes must be a tensor"),
)

POLYGONS = CaseList()


def outlines(
    g: torch.Generator, rings: list[int], points: int, height: float, width: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(points, rings, objects)``: stars of as many points, as many of them an object as ``rings`` says."""
    count = sum(rings)
    angle = torch.arange(points).double() / points * 6.283185307179586
    radius = 0.05 + 0.35 * torch.rand(count, points, generator=g, dtype=torch.float64)
    centre = torch.rand(count, 1, 2, generator=g, dtype=torch.float64)
    star = centre + torch.stack([angle.cos(), angle.sin()], -1) * radius[..., None]
    found = (star * torch.tensor([width, height])).view(-1, 2)
    objects = torch.tensor([0, *rings]).cumsum(0)
    return found, torch.arange(count + 1) * points, objects


def _outlined(
    count: int, size: Any, rings: tuple[int, ...] = (1, 2, 3), points: int = 9, **sizes: Any
) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        found, ring_at, object_at = outlines(g, list(rings), points, 20, 26)
        drawn = _drawn(count, size, objects=len(rings), **sizes)(g)
        del drawn["gt_masks"]
        return {"points": found, "rings": ring_at, "objects": object_at, **drawn}

    return make


POLYGONS.add("boxes=3", "quick", _outlined(3, 4, points=5))
POLYGONS.add("oblong", "quick", _outlined(2, (3, 8), points=5))
POLYGONS.add("size=1", "", _outlined(6, 1))
POLYGONS.add("size=28", "", _outlined(2, 28))
POLYGONS.add("tiny-boxes", "", _outlined(6, 5, smallest=0.01, largest=1.5))
POLYGONS.add("large-boxes", "", _outlined(6, 9, smallest=20.0, largest=90.0))
POLYGONS.add("objects-without-rings", "", _outlined(12, 5, rings=(0, 2, 0, 1, 0)))
POLYGONS.add("boxes=70", "", _outlined(70, 2, rings=(1,) * 9, points=4))
POLYGONS.add("training", "large", _outlined(40, 28, rings=(1, 3, 1, 2, 1, 1), points=60))


@POLYGONS.add("corners-on-centres")  # and level edges
def _(g):
    points = tensor([0.5, 0.5], [4.5, 0.5], [4.5, 2.5], [6.5, 2.5], [6.5, 5.5], [0.5, 5.5])
    return {
        "points": points,
        "rings": torch.tensor([0, 6]),
        "objects": torch.tensor([0, 1]),
        "boxes": tensor([0, 0, 8, 8], [1, 1, 7, 7]),
        "matched": torch.tensor([0, 0]),
        "size": (8, 8),
    }


@POLYGONS.add("few-points")  # rings of 0, 1 and 2
def _(g):
    return {**_outlined(4, 5, rings=(1, 1, 1), points=2)(g), "rings": torch.tensor([0, 0, 1, 3])}


POLYGONS.add("no-boxes", "empty quick", _outlined(0, 4, points=5))


@POLYGONS.add("nothing", "empty")
def _(g):
    zero = torch.zeros(1, dtype=torch.int64)
    return {**_outlined(0, 4)(g), "points": torch.empty(0, 2).double(), "rings": zero, "objects": zero}


@POLYGONS.add("non-finite", "hostile quick")
def _(g):
    rows = [[NAN, 0, 9, 9], [0, 0, INF, 9], [0, -INF, 9, 9], [1, 2, 9, 9]]
    return {**_outlined(len(rows), 3, points=5)(g), "boxes": tensor(*rows)}


@POLYGONS.add("non-finite-points", "hostile")
def _(g):
    drawn = _outlined(8, 6)(g)
    drawn["points"][3, 0], drawn["points"][12, 1], drawn["points"][22, 0], drawn["points"][30] = NAN, NAN, INF, -INF
    return drawn


@POLYGONS.add("huge", "hostile")
def _(g):
    rows = [[0, 0, 1e9, 5], [-1e30, -1e30, 1e30, 1e30], [9, 9, 2, 3]]
    return {**_outlined(len(rows), 3)(g), "boxes": tensor(*rows)}


def _polygons_refused(**changes: Any) -> Callable[[], Arguments]:
    zeros = torch.zeros(4, dtype=torch.int64)
    good = {"points": torch.rand(6, 2), "rings": torch.tensor([0, 3, 6]), "objects": torch.tensor([0, 1, 2])}
    return lambda: {**good, "boxes": torch.rand(4, 4), "matched": zeros, "size": 3, **changes}


POLYGON_ERRORS = (
    ErrorCase("points-width", _polygons_refused(points=torch.rand(6, 3)), r"points must be \[V, 2\]"),
    ErrorCase("points-integer", _polygons_refused(points=torch.zeros(6, 2).int()), r"points must be float16"),
    ErrorCase("rings-rank", _polygons_refused(rings=torch.zeros(2, 2).int()), r"rings must be offsets"),
    ErrorCase("rings-float", _polygons_refused(rings=torch.zeros(3)), r"rings must be an integer tensor"),
    ErrorCase("objects-empty", _polygons_refused(objects=torch.zeros(0).int()), r"objects must be offsets"),
    ErrorCase("boxes-width", _polygons_refused(boxes=torch.rand(4, 5)), r"boxes must be \[K, 4\]"),
    ErrorCase("matched-length", _polygons_refused(matched=INDICES[:3]), r"matched must be \[K\].* 4 boxes"),
    ErrorCase("matched-high", _polygons_refused(matched=INDICES + 1), r"matched\[1\] is 2, but must", "cpu"),
    ErrorCase("size-zero", _polygons_refused(size=0), r"size must be 1 to 32768"),
)

SPECS = (
    OpSpec(
        name="polygon_mask_targets",
        function=polygon_mask_targets,
        dispatcher_ops=("polygon_mask_targets",),
        cases=tuple(POLYGONS),
        errors=POLYGON_ERRORS,
        data=("points",),
        compare="exact",
        widens=True,
    ),
    OpSpec(
        name="mask_targets",
        function=mask_targets,
        dispatcher_ops=("mask_targets",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("gt_masks",),
        widens=True,
    ),
)
