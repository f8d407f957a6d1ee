"""Cases of box coding in both directions.

Boxes lie near the origin: how far away they are only adds the rounding of their centres, which is torchvision's too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import decode_boxes, encode_boxes
from structops.testing.cases._draw import INF, NAN, CaseList, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

DECODE, ENCODE = CaseList(), CaseList()
Draw = Callable[[torch.Generator], Arguments]
Options = dict[str, Any]
SSD: Options = {"weights": (10.0, 10.0, 5.0, 5.0)}
PIXELS: Options = {"coding": "distances", "normalize_by_size": False}
CELLS: Options = {"coding": "cells", "stride": 16.0}


def anchors(g: torch.Generator, *size: int) -> torch.Tensor:
    """``[*size, 4]``: sides of 8 to 32, in a square of 64."""
    corner, sides = uniform(g, 0, 32, *size, 2), uniform(g, 8, 32, *size, 2)
    return torch.cat([corner, corner + sides], -1)


def deltas(g: torch.Generator, *size: int, spread: float = 0.5) -> torch.Tensor:
    """``[*size]``, normal."""
    return spread * torch.randn(*size, generator=g, dtype=torch.float64)


def near(g: torch.Generator, boxes: torch.Tensor) -> torch.Tensor:
    """Boxes whose centres are within 3 of those given, so within a cell of 16, and whose sides are 8 to 32."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + uniform(g, -3, 3, *boxes.shape[:-1], 2)
    half = uniform(g, 4, 16, *boxes.shape[:-1], 2)
    return torch.cat([centre - half, centre + half], -1)


def add(name: str, tags: str, of_anchors: tuple[int, ...], of_boxes: tuple[int, ...], **options: object) -> None:
    """One case in both directions: anchors, and as many boxes or deltas (of boxes one by one: ``[..., 4]``)."""
    DECODE.add(
        name,
        tags,
        lambda g: {"anchors": anchors(g, *of_anchors), "deltas": deltas(g, *of_boxes), **options},
    )
    if of_boxes[-1] == 4:

        def encode(g: torch.Generator) -> Arguments:
            these = anchors(g, *of_anchors)
            return {"anchors": these, "boxes": near(g, these.expand(*of_boxes)), **options}

        ENCODE.add(name, tags, encode)


# Typical.

add("few", "quick", (4,), (4, 4))
add("class-specific", "quick", (5,), (5, 12), weights=(10.0, 10.0, 5.0, 5.0))
add("classes-apart", "", (5, 1), (5, 3, 4))
add("images", "quick", (6,), (2, 6, 4), **SSD)
add("images-with-anchors-of-their-own", "", (2, 6), (2, 6, 4))
add("images-and-classes", "", (6,), (2, 6, 8))
add("anchors-repeated-in-the-middle", "", (2, 1, 4), (2, 3, 4, 4))
add("one-anchor", "", (), (7, 4))
add("one-box", "", (), (4,))
add("distances", "quick", (4,), (4, 4), coding="distances")
add("distances-pixels", "", (6,), (2, 6, 4), **PIXELS)
add("cells", "quick", (4,), (4, 4), **CELLS)
add("cells-images", "", (9,), (2, 9, 4), **CELLS)
for _name, _options in (("deltas", SSD), ("distances", {"coding": "distances"}), ("cells", CELLS)):
    add(f"many-{_name}", "", (1100,), (1100, 4), **_options)  # more than one stretch
add("many-classes", "", (60,), (60, 4 * 37))


@DECODE.add("clipped", "quick")
def _(g):
    d = deltas(g, 8, 4)
    d[:4, 2:] *= 20
    return {"anchors": anchors(g, 8), "deltas": d, "bbox_xform_clip": 1.0}


@DECODE.add("clipped-cells")
def _(g):
    return {"anchors": anchors(g, 8), "deltas": deltas(g, 8, 4, spread=4), "bbox_xform_clip": 2.0, **CELLS}


add("gradient", "gradient", (3,), (3, 4), **SSD)
add("gradient-images", "gradient", (2,), (2, 2, 4))
add("gradient-classes", "gradient", (2, 1), (2, 2, 4))
add("gradient-distances", "gradient", (2,), (2, 4), coding="distances")
add("gradient-pixels", "gradient", (2,), (2, 4), **PIXELS)
add("gradient-cells", "gradient", (2,), (2, 2, 4), **CELLS)

add("no-boxes", "empty quick", (0,), (0, 4))
add("no-classes", "empty", (3, 1), (3, 0, 4))
add("no-images", "empty", (3,), (0, 3, 4))


# Hostile.

ROWS = {
    "non-finite": ([NAN, 2, 20, 30], [2, 2, NAN, 30], [INF, 2, INF, 30], [-INF, -INF, INF, INF], [NAN] * 4),
    "inverted": ([20, 2, 2, 30], [20, 30, 2, 2]),
    "zero-area": ([5, 5, 5, 5], [5, 5, 20, 5], [5, 5, 5, 20]),
    "huge": ([-1e15, -1e15, 1e15, 1e15], [-6e4, -6e4, 6e4, 6e4]),
}
ROW_OPTIONS: dict[str, Options] = {"deltas": SSD, "distances": {"coding": "distances"}, "cells": CELLS}


def _hostile(rows, options: Options, decode: bool) -> Draw:
    def draw(g: torch.Generator) -> Arguments:
        these = torch.cat([tensor(*rows), anchors(g, 2)])
        if decode:
            found = deltas(g, 2, len(these), 4)
            found[1] = torch.cat([tensor([NAN, 0, 0, 0], [0, INF, -INF, INF]), deltas(g, len(these) - 2, 4)])
            return {"anchors": these, "deltas": found, **options}
        ordinary = anchors(g, len(these))
        boxes = torch.stack([near(g, ordinary), torch.cat([tensor(*rows).flip(0), anchors(g, 2)])])
        return {"anchors": these, "boxes": boxes, **options}

    return draw


for _kind, _rows in ROWS.items():
    for _name, _options in ROW_OPTIONS.items():
        _tags = "hostile quick" if (_kind, _name) == ("non-finite", "deltas") else "hostile"
        DECODE.add(f"{_kind}-{_name}", _tags, _hostile(_rows, _options, decode=True))
        ENCODE.add(f"{_kind}-{_name}", _tags, _hostile(_rows, _options, decode=False))

add("large", "large", (6000,), (2, 6000, 4), **SSD)


# Arguments that must be refused.


def _refused(name: str, **changes: object) -> Callable[[], Arguments]:
    return lambda: {name: torch.rand(5, 4), "anchors": torch.rand(5, 4), **changes}


def _errors(op: str, name: str) -> tuple[ErrorCase, ...]:
    cases: list[tuple[str, dict[str, Any], str]] = [
        (f"{name}-width", {name: torch.rand(5, 3)}, rf"{name} must be \[\.\.\., 4\]"),
        (f"{name}-type", {name: [1.0, 2, 3, 4]}, rf"{name} must be .*got list"),
        (f"{name}-integer", {name: torch.zeros(5, 4).long()}, rf"{name} must be float16"),
        ("anchors-width", {"anchors": torch.rand(5, 8)}, r"anchors must be \[\.\.\., 4\], got \[5, 8\]"),
        ("anchors-integer", {"anchors": torch.zeros(5, 4).int()}, r"anchors must be float16"),
        ("anchors-device", {"anchors": torch.rand(5, 4, device="meta")}, r"anchors must be on the same device as"),
        ("anchors-count", {"anchors": torch.rand(3, 4)}, rf"leading dimensions of anchors must broadcast .*{name}"),
        ("anchors-rank", {"anchors": torch.rand(2, 5, 4)}, r"leading dimensions of anchors must broadcast"),
        ("coding", {"coding": "offsets"}, r"coding must be one of deltas, distances, cells, got 'offsets'"),
        ("weights", {"weights": (1.0, 1.0)}, r"weights must be 4 finite numbers other than 0, got \(1"),
        ("weights-zero", {"weights": (1.0, 1.0, 0.0, 1.0)}, r"weights must be 4 finite numbers other than 0"),
        ("weights-nan", {"weights": (1.0, NAN, 1.0, 1.0)}, r"weights must be 4 finite numbers other than 0"),
    ]
    below: dict[str, Any] = {
        name: torch.rand(6, 2, 4),
        "anchors": torch.rand(3, 4),
        "coding": 0,
        "weights": [1.0] * 4,
        **({"clip": 4.0} if name == "deltas" else {}),
        "stride": 1.0,
    }
    grad = {"grad": torch.rand(6, 2, 4)}
    backward = f"{op}_backward"
    return (
        *(ErrorCase(case, _refused(name, **changes), match) for case, changes, match in cases),
        ErrorCase("below-rank", lambda: {**below, name: torch.rand(6, 4)}, rf"{name} must be \[R, C, 4\]", op=op),
        ErrorCase("below-anchors", lambda: {**below, "anchors": torch.rand(4, 4)}, r"a multiple of the anchors", op=op),
        ErrorCase("below-coding", lambda: {**below, "coding": 4}, r"coding must be 0 to 3, got 4", op=op),
        ErrorCase("below-weights", lambda: {**below, "weights": [1.0]}, r"weights must be four numbers, got 1", op=op),
        ErrorCase(
            "grad-shape", lambda: {**below, "grad": torch.rand(6, 1, 4)}, r"grad must be \[6, 2, 4\]", op=backward
        ),
        ErrorCase("grad-type", lambda: {**below, "grad": grad["grad"].double()}, r"grad must be of the", op=backward),
    )


def _torchvision(decode: bool) -> Callable[..., torch.Tensor]:
    """Its coders; of cells, and of what neither of them takes (batches, anchors that repeat), one box at a time."""

    def peer(anchors, coding="deltas", weights=(1.0,) * 4, normalize_by_size=True, stride=1.0, **rest):
        from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder

        coded = rest.pop("deltas" if decode else "boxes")
        if coded.shape[-1] != 4:
            coded, anchors = coded.unflatten(-1, (-1, 4)), anchors[..., None, :]
        shape = coded.shape
        coded, anchors = coded.reshape(-1, 4), anchors.expand(shape).reshape(-1, 4)
        clip = rest.get("bbox_xform_clip", 4.135166556742356)
        if coding == "distances":
            linear = BoxLinearCoder(normalize_by_size)
            return (linear.decode(coded, anchors) if decode else linear.encode(anchors, coded)).reshape(shape)
        coder = BoxCoder(weights, clip) if coding == "deltas" else BoxCoder((1.0,) * 4, clip)
        result = coder.decode_single(coded, anchors) if decode else coder.encode_single(coded, anchors)
        if coding == "cells":  # it has none: sizes are coded as those of deltas, places by hand
            middle = (anchors[:, :2] + anchors[:, 2:]) / 2
            if decode:
                half = (result[:, 2:] - result[:, :2]) / 2
                place = middle + (coded[:, :2].sigmoid() - 0.5) * stride
                result = torch.cat([place - half, place + half], 1)
            else:
                place = ((coded[:, :2] + coded[:, 2:]) / 2 - middle) / stride + 0.5
                result = torch.cat([place.logit(), result[:, 2:]], 1)
        return result.reshape(shape)

    return peer


def _spec(function: Callable[..., torch.Tensor], name: str, cases: CaseList) -> OpSpec:
    op = function.__name__
    return OpSpec(
        name=op,
        function=function,
        dispatcher_ops=(op, f"{op}_backward"),
        cases=tuple(cases),
        errors=_errors(op, name),
        data=(name, "anchors"),
        differentiable=(name, "anchors"),
        scale="outputs",
        widens=True,
        peer={"torchvision": _torchvision(name == "deltas")},
    )


SPECS = (_spec(decode_boxes, "deltas", DECODE), _spec(encode_boxes, "boxes", ENCODE))
