"""Cases of anchors, default boxes and grid points. Results are equal to the definition, in every type."""

from __future__ import annotations

import torch

from structops.ops import default_boxes, generate_anchors, yolo_grid
from structops.ops.anchors import cell_anchors, wh_pairs
from structops.testing.cases._draw import INF, NAN, CaseList, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

ANCHORS, BOXES, POINTS = CaseList(), CaseList(), CaseList()
RATIOS = (0.5, 1.0, 2.0)


def cells(*sizes: float, ratios: tuple[float, ...] = RATIOS) -> torch.Tensor:
    return cell_anchors(sizes, ratios, torch.float64)


def pairs(g: torch.Generator, count: int) -> torch.Tensor:
    return uniform(g, 0.02, 1.1, count, 2)


def anchors(cell_anchors: object, grid_sizes: object, strides: object) -> Arguments:
    return {"cell_anchors": cell_anchors, "grid_sizes": grid_sizes, "strides": strides}


def boxes(wh_pairs: object, grid_sizes: object, image_size: object, **options: object) -> Arguments:
    return {"wh_pairs": wh_pairs, "grid_sizes": grid_sizes, "image_size": image_size, **options}


def points(grid_sizes: object, strides: object, **options: object) -> Arguments:
    return {"grid_sizes": grid_sizes, "strides": strides, "like": torch.zeros(3, dtype=torch.float64), **options}


# Anchors: an RPN's pyramid, RetinaNet's nine a pixel, one level, strides that differ along the axes.


@ANCHORS.add("two-levels", "quick")
def _(g):
    return anchors([cells(32), cells(64)], [(3, 4), (2, 2)], [8, 16])


@ANCHORS.add("rpn")
def _(g):
    grids = [(25, 42), (13, 21), (7, 11), (4, 6), (2, 3)]
    return anchors([cells(s) for s in (32, 64, 128, 256, 512)], grids, [4, 8, 16, 32, 64])


@ANCHORS.add("retinanet", "quick")
def _(g):
    levels = [cells(s, s * 2 ** (1 / 3), s * 2 ** (2 / 3)) for s in (32, 64, 128)]
    return anchors(levels, [(7, 9), (4, 5), (2, 3)], [8, 16, 32])


@ANCHORS.add("one-level", "quick")
def _(g):
    return anchors([cells(128, 256, 512)], [(5, 7)], [(16, 15)])


@ANCHORS.add("fractions")  # every sum rounds, and in halves every offset too
def _(g):
    return anchors([uniform(g, -300, 300, 5, 4)], [(40, 60)], [(37, 41)])


@ANCHORS.add("levels-differ")
def _(g):
    levels = [uniform(g, -9, 9, n, 4) for n in (1, 4, 2, 3, 5, 1, 2, 6)]
    return anchors(
        levels, [(1, 1), (2, 7), (3, 1), (1, 5), (2, 2), (4, 4), (1, 1), (2, 3)], [1, 2, 3, 5, 8, 13, 21, 34]
    )


@ANCHORS.add("stride=0")  # a map larger than its image
def _(g):
    return anchors([cells(8)], [(4, 3)], [(0, 0)])


@ANCHORS.add("empty-levels", "empty quick")
def _(g):
    return anchors([cells(8), cells(16), cells(32), cells(64)], [(2, 3), (0, 5), (3, 0), (2, 2)], [4, 8, 16, 32])


@ANCHORS.add("no-cells", "empty")
def _(g):
    return anchors([torch.empty(0, 4, dtype=torch.float64), cells(4)], [(2, 3), (1, 2)], [4, 8])


@ANCHORS.add("nothing", "empty")
def _(g):
    return anchors([cells(8)], [(0, 0)], [4])


@ANCHORS.add("non-finite", "hostile quick")
def _(g):
    odd = torch.tensor([[NAN, 0, 1, 2], [-INF, -INF, INF, INF], [1e300, -1e300, 3e38, 6e4]], dtype=torch.float64)
    return anchors([odd, cells(8)], [(2, 3), (1, 2)], [4, 8])


@ANCHORS.add("far", "hostile")  # offsets beyond the exact integers of float32, and the largest half
def _(g):
    return anchors([cells(8)], [(3, 2)], [(2**29 + 1, 2**30 - 1)])


@ANCHORS.add("large", "large")
def _(g):
    return anchors([cells(32), cells(64)], [(200, 304), (100, 152)], [4, 8])


# Default boxes: SSD300's levels, steps, no clipping.


def _ssd() -> list[torch.Tensor]:
    scales = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    ratios = ([2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0])
    levels = zip(scales, scales[1:], ratios, strict=False)
    return [wh_pairs(a, b, r, torch.float64) for a, b, r in levels]


@BOXES.add("two-levels", "quick")
def _(g):
    return boxes(_ssd()[:2], [(3, 4), (2, 2)], (30, 41))


@BOXES.add("ssd300")
def _(g):
    return boxes(_ssd(), [(s, s) for s in (38, 19, 10, 5, 3, 1)], (300, 300), steps=[8, 16, 32, 64, 100, 300])


@BOXES.add("steps", "quick")
def _(g):
    return boxes([pairs(g, 3), pairs(g, 2)], [(7, 9), (3, 5)], (101, 137), steps=[15.0, 30.5])


@BOXES.add("not-clipped", "quick")
def _(g):
    return boxes([pairs(g, 6)], [(13, 11)], (333, 517), clip=False)


@BOXES.add("odd-sides")  # quotients that round
def _(g):
    return boxes([pairs(g, 5)], [(37, 61)], (1079, 1917))


@BOXES.add("image=0x0")
def _(g):
    return boxes([pairs(g, 2)], [(2, 3)], (0, 0))


@BOXES.add("empty-levels", "empty quick")
def _(g):
    return boxes([pairs(g, 2)] * 3, [(0, 4), (2, 3), (0, 0)], (64, 64))


@BOXES.add("no-pairs", "empty")
def _(g):
    return boxes([torch.empty(0, 2, dtype=torch.float64)], [(2, 3)], (64, 64))


@BOXES.add("non-finite", "hostile quick")
def _(g):
    odd = torch.tensor([[NAN, 0.5], [INF, -INF], [1e300, -1.0], [6e4, 1e-30]], dtype=torch.float64)
    return boxes([odd], [(2, 3)], (64, 48))


@BOXES.add("non-finite-not-clipped", "hostile")
def _(g):
    odd = torch.tensor([[NAN, 0.5], [INF, -INF], [1e300, -1.0], [6e4, 1e-30]], dtype=torch.float64)
    return boxes([odd], [(2, 3)], (64, 48), clip=False, steps=[1e-300])


@BOXES.add("large", "large")
def _(g):
    return boxes([pairs(g, 6), pairs(g, 4)], [(150, 201), (75, 100)], (1200, 1608))


# Grid points.


@POINTS.add("two-levels", "quick")
def _(g):
    return points([(3, 4), (2, 2)], [8, 16])


@POINTS.add("with-stride", "quick")
def _(g):
    return points([(4, 5), (2, 3), (1, 2)], [8, (16, 15), 32], with_stride=True)


@POINTS.add("yolo640")
def _(g):
    return points([(80, 80), (40, 40), (20, 20)], [8, 16, 32])


@POINTS.add("corners", "quick")
def _(g):
    return points([(5, 7)], [(3, 4)], offset=0.0)


@POINTS.add("odd-offset")
def _(g):
    return points([(9, 70), (70, 9)], [7, 13], offset=1 / 3, with_stride=True)


@POINTS.add("empty-levels", "empty quick")
def _(g):
    return points([(0, 4), (2, 3), (3, 0)], [8, 16, 32])


@POINTS.add("nothing", "empty")
def _(g):
    return points([(0, 0)], [8], with_stride=True)


@POINTS.add("far", "hostile quick")  # strides beyond the exact integers of float32, and the largest half
def _(g):
    return points([(3, 2)], [(2**31 - 1, 2**24 + 1)], with_stride=True)


@POINTS.add("far-offset", "hostile")
def _(g):
    return points([(3, 2)], [8], offset=-16777215.5, with_stride=True)


@POINTS.add("large", "large")
def _(g):
    return points([(160, 160), (80, 81)], [8, 16], with_stride=True)


# Arguments that must be refused.


def _refused(good: Arguments, **changes: object):
    return lambda: {**good, **changes}


def _bad_grids(good: Arguments) -> tuple[ErrorCase, ...]:
    cases = (
        ("grids-count", [(2, 3)], r"grid_sizes must have one \(height, width\) a level, got 1 for 2"),
        ("grids-negative", [(2, 3), (-1, 2)], r"grid_sizes must be 0 or more"),
        ("grids-huge", [(2, 3), (2**24, 1)], r"grid_sizes must be 0 or more and below 2\^24"),
        ("grids-flat", [2, 3], r"grid_sizes must hold pairs of ints"),
        ("grids-triple", [(2, 3, 4), (1, 2, 3)], r"grid_sizes must hold pairs of ints"),
        ("grids-float", [(2.0, 3), (1, 2)], r"grid_sizes must hold pairs of ints"),
        ("grids-none", None, r"grid_sizes must hold pairs of ints"),
    )
    return tuple(ErrorCase(name, _refused(good, grid_sizes=value), match) for name, value, match in cases)


def _bad_strides(good: Arguments) -> tuple[ErrorCase, ...]:
    cases = (
        ("strides-count", [8], r"strides must have one \(y, x\) a level, got 1 for 2"),
        ("strides-negative", [8, (4, -1)], r"strides must be 0 or more"),
        ("strides-huge", [8, 2**31], r"strides must be 0 or more and below 2\^31"),
        ("strides-float", [8.0, 16.0], r"strides must hold pairs of ints or ints"),
    )
    return tuple(ErrorCase(name, _refused(good, strides=value), match) for name, value, match in cases)


def _bad_cells(good: Arguments, name: str, columns: int) -> tuple[ErrorCase, ...]:
    one = torch.zeros(3, columns)
    cases: tuple[tuple[str, object, str], ...] = (
        ("none", None, rf"{name} must be a list of tensors"),
        ("no-levels", [], r"1 to 8 levels are supported"),
        ("rank", [one, one[0]], rf"{name}\[1\] must be \[A, {columns}\]"),
        ("width", [one[:, 1:], one], rf"{name}\[0\] must be \[A, {columns}\]"),
        ("integer", [one.long(), one.long()], rf"{name}\[0\] must be float16"),
        ("types", [one, one.double()], rf"{name} must be of one type"),
        ("devices", [one, one.to("meta")], rf"{name} must be on one device"),
    )
    return tuple(ErrorCase(f"cells-{case}", _refused(good, **{name: value}), match) for case, value, match in cases)


GOOD_ANCHORS = anchors([torch.zeros(3, 4)] * 2, [(2, 3), (1, 2)], [8, 16])
GOOD_BOXES = boxes([torch.zeros(3, 2)] * 2, [(2, 3), (1, 2)], (64, 64))
GOOD_POINTS = {**points([(2, 3), (1, 2)], [8, 16]), "like": torch.zeros(1)}
NINE = {"grid_sizes": [(1, 1)] * 9, "strides": [1] * 9}
ANCHOR_ERRORS = (
    *_bad_cells(GOOD_ANCHORS, "cell_anchors", 4),
    *_bad_grids(GOOD_ANCHORS),
    *_bad_strides(GOOD_ANCHORS),
    ErrorCase(
        "nine", _refused({**NINE, "cell_anchors": [torch.zeros(1, 4)] * 9}), r"1 to 8 levels are supported, got 9"
    ),
)
BOX_ERRORS = (
    *_bad_cells(GOOD_BOXES, "wh_pairs", 2),
    *_bad_grids(GOOD_BOXES),
    ErrorCase("image-negative", _refused(GOOD_BOXES, image_size=(-1, 64)), r"image_size must be \(height, width\), 0"),
    ErrorCase("image-length", _refused(GOOD_BOXES, image_size=(1, 2, 3)), r"image_size must hold pairs of ints"),
    ErrorCase("steps-count", _refused(GOOD_BOXES, steps=[8.0]), r"steps must have one number a level, got 1 for 2"),
    ErrorCase("steps-zero", _refused(GOOD_BOXES, steps=[8.0, 0.0]), r"steps must be positive and finite"),
    ErrorCase("steps-nan", _refused(GOOD_BOXES, steps=[NAN, 8.0]), r"steps must be a number, got NaN"),
    ErrorCase("steps-one", _refused(GOOD_BOXES, steps=8.0), r"steps must be a number for each level, got 8.0"),
)
POINT_ERRORS = (
    *(case for case in _bad_grids(GOOD_POINTS) if case.name != "grids-count"),
    ErrorCase("grids-none-at-all", _refused(GOOD_POINTS, grid_sizes=[]), r"1 to 8 levels are supported, got 0"),
    ErrorCase("nine", _refused({**GOOD_POINTS, **NINE}), r"1 to 8 levels are supported, got 9"),
    *_bad_strides(GOOD_POINTS),
    ErrorCase("like-none", _refused(GOOD_POINTS, like=None), r"like must be a tensor"),
    ErrorCase("like-integer", _refused(GOOD_POINTS, like=torch.zeros(1).int()), r"like must be float16"),
    ErrorCase("offset", _refused(GOOD_POINTS, offset=NAN), r"offset must be a number, got NaN"),
    ErrorCase("offset-infinite", _refused(GOOD_POINTS, offset=INF), r"offset must be finite and below"),
)


def torchvision_anchors(cell_anchors, grid_sizes, strides):
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    generator = AnchorGenerator(((1,),) * len(cell_anchors), ((1.0,),) * len(cell_anchors))
    generator.cell_anchors = list(cell_anchors)
    strides = [(s, s) if isinstance(s, int) else s for s in strides]
    return torch.cat(generator.grid_anchors(grid_sizes, strides))


def torchvision_boxes(wh_pairs, grid_sizes, image_size, steps=None, clip=True):
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    generator = DefaultBoxGenerator([[1]] * len(wh_pairs), steps=steps, clip=clip)
    generator._wh_pairs = list(wh_pairs)
    maps = [torch.empty(1, 1, *size, dtype=wh_pairs[0].dtype) for size in grid_sizes]
    return generator(ImageList(torch.empty(1, 3, *image_size), [image_size]), maps)[0]


SPECS = (
    OpSpec(
        name="generate_anchors",
        function=generate_anchors,
        dispatcher_ops=("generate_anchors",),
        cases=tuple(ANCHORS),
        errors=ANCHOR_ERRORS,
        data=("cell_anchors",),
        compare="exact",
        peer={"torchvision": torchvision_anchors},
    ),
    OpSpec(
        name="default_boxes",
        function=default_boxes,
        dispatcher_ops=("default_boxes",),
        cases=tuple(BOXES),
        errors=BOX_ERRORS,
        data=("wh_pairs",),
        compare="exact",
        widens=True,
        peer={"torchvision": torchvision_boxes},
    ),
    OpSpec(
        name="yolo_grid",
        function=yolo_grid,
        dispatcher_ops=("yolo_grid",),
        cases=tuple(POINTS),
        errors=POINT_ERRORS,
        data=("like",),
        compare="exact",
    ),
)
