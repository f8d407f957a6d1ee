"""Cases of the intersection over union of boxes and its generalized, distance and complete forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

PLAIN, GENERALIZED, DISTANCE, COMPLETE = CaseList(), CaseList(), CaseList(), CaseList()
ALL = (PLAIN, GENERALIZED, DISTANCE, COMPLETE)
CORNERS = (GENERALIZED, DISTANCE, COMPLETE)
Draw = Callable[[torch.Generator], Arguments]


def add(name: str, tags: str = "", to: tuple[CaseList, ...] = ALL) -> Callable[[Draw], Draw]:
    """The same boxes as a case of several forms; quick for the first of them alone, which is enough for compilers."""

    def register(draw: Draw) -> Draw:
        for cases in to:
            mine = tags if cases is to[0] or "hostile" in tags or name == "few" else tags.replace("quick", "")
            cases.add(name, mine, draw)
        return draw

    return register


def crowd(g: torch.Generator, *size: int, around: float = 0.0) -> torch.Tensor:
    """``[*size, 4]``: boxes of 8 to 40 in a square of 64, so that most pairs overlap, in part."""
    corner, sides = uniform(g, 0, 40, *size, 2), uniform(g, 8, 40, *size, 2)
    return around + torch.cat([corner, corner + sides], -1)


def pair(boxes1: torch.Tensor, boxes2: torch.Tensor, **options: object) -> Arguments:
    return {"boxes1": boxes1, "boxes2": boxes2, **options}


# Typical.

add("few", "quick")(lambda g: pair(crowd(g, 3), crowd(g, 5)))
add("elementwise", "quick")(lambda g: pair(crowd(g, 7), crowd(g, 7), elementwise=True))
add("anchors")(lambda g: pair(boxes(g, 12, 320, 240, 16), boxes(g, 300, 320, 240, 8, 200)))
add("one-against-many", to=(PLAIN,))(lambda g: pair(crowd(g, 1), crowd(g, 70)))
add("many-against-one", to=(PLAIN,))(lambda g: pair(crowd(g, 70), crowd(g, 1)))
# A row and some columns beyond a tile of the CPU's, and an odd number of vectors.
add("tiles", to=(PLAIN, COMPLETE))(lambda g: pair(boxes(g, 65, 640, 480, 8), boxes(g, 533, 640, 480, 8)))
add("elementwise-tiles", to=(PLAIN, COMPLETE))(lambda g: pair(crowd(g, 523), crowd(g, 523), elementwise=True))
add("batches", "quick", to=(PLAIN,))(lambda g: pair(crowd(g, 2, 1, 3), crowd(g, 2, 4)))
add("elementwise-broadcast", to=(PLAIN, DISTANCE))(lambda g: pair(crowd(g, 2, 5), crowd(g, 1, 5), elementwise=True))
add("elementwise-one", to=(PLAIN,))(lambda g: pair(crowd(g, 6), crowd(g), elementwise=True))
# (Not of the others: the rounding of a centre there is far above their own.)
add("far-from-the-origin", to=(PLAIN, GENERALIZED))(
    lambda g: pair(crowd(g, 9, around=-5000), crowd(g, 11, around=-5000))
)
add("eps", to=(DISTANCE, COMPLETE))(lambda g: pair(crowd(g, 5), crowd(g, 9), eps=3.0))
add("formats-xywh", "quick", to=(PLAIN,))(lambda g: pair(crowd(g, 4), crowd(g, 6), fmt="xywh"))
add("formats-cxcywh", to=(PLAIN,))(lambda g: pair(crowd(g, 6), crowd(g, 9), fmt="cxcywh"))
add("formats-elementwise", to=(PLAIN,))(lambda g: pair(crowd(g, 9), crowd(g, 9), fmt="cxcywh", elementwise=True))


# Where coordinates are equal: gradients are halved, and a clamp at its bound lets none through.


@add("identical", "quick", to=(COMPLETE, PLAIN, GENERALIZED, DISTANCE))
def _(g):
    b = torch.round(crowd(g, 6))
    return pair(b, b.clone())


@add("touching")
def _(g):
    y, x = (v.reshape(-1).double() for v in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    return pair(torch.stack([x, y, x + 1, y + 1], 1) * 16, torch.round(crowd(g, 5)))


@add("nested")
def _(g):
    half = torch.arange(9, 0, -1, dtype=torch.float64)[:, None]
    return pair(50 + torch.cat([-half, -half, half, 2 * half], 1), 50 + torch.cat([-half, -2 * half, half, half], 1))


# Numerical derivatives. Those of the complete form are not its gradient, which takes a weight for a constant, unless
# the boxes have one shape.


def _one_shape(g: torch.Generator, n: int) -> torch.Tensor:
    corner, side = uniform(g, 0, 20, n, 2), uniform(g, 10, 30, n, 1)
    return torch.cat([corner, corner + torch.cat([side, 0.75 * side], 1)], 1)


add("gradient", "gradient", to=(PLAIN, GENERALIZED, DISTANCE))(lambda g: pair(crowd(g, 3), crowd(g, 2)))
add("gradient-elementwise", "gradient", to=(PLAIN, GENERALIZED, DISTANCE))(
    lambda g: pair(crowd(g, 3), crowd(g, 3), elementwise=True)
)
add("gradient-xywh", "gradient", to=(PLAIN,))(lambda g: pair(crowd(g, 2), crowd(g, 2), fmt="xywh"))
add("gradient-cxcywh", "gradient", to=(PLAIN,))(lambda g: pair(crowd(g, 2), crowd(g, 2), fmt="cxcywh"))
add("gradient-one-shape", "gradient", to=(COMPLETE,))(lambda g: pair(_one_shape(g, 3), _one_shape(g, 2)))


# Empty.

add("no-boxes1", "empty quick", to=(PLAIN,))(lambda g: pair(crowd(g, 0), crowd(g, 3)))
add("no-boxes2", "empty", to=ALL)(lambda g: pair(crowd(g, 3), crowd(g, 0)))
add("no-batch", "empty", to=(PLAIN,))(lambda g: pair(crowd(g, 0, 0), crowd(g, 0, 2)))
add("no-pairs", "empty", to=(PLAIN,))(lambda g: pair(crowd(g, 0), crowd(g, 0), elementwise=True))


# Hostile. Nothing whose area float32 cannot hold: there the definition in float64 knows better.

ROWS = {
    "non-finite": (
        [NAN, 10, 40, 40],
        [10, NAN, 40, 40],
        [10, 10, NAN, 40],
        [10, 10, 40, NAN],
        [NAN, NAN, NAN, NAN],
        [-INF, -INF, INF, INF],
        [10, 10, INF, 40],
        [-INF, 10, 40, 40],
        [INF, INF, INF, INF],
    ),
    "inverted": ([40, 10, 10, 40], [10, 40, 40, 10], [40, 40, 10, 10]),
    "zero-area": ([20, 20, 20, 20], [20, 20, 30, 20], [20, 20, 20, 30], [0, 0, 0, 0]),
    "huge": ([-1e15, -1e15, 1e15, 1e15], [0, 0, 1e15, 1], [1e14, 1e14, 3e14, 3e14], [-6e4, -6e4, 6e4, 6e4]),
    "tiny": ([0, 0, 1e-12, 1e-12], [0, 0, 1e-10, 1e-12], [-1e-12, 0, 1e-12, 1e-11]),
}


def _hostile(name: str, **options: object) -> Draw:
    def draw(g: torch.Generator) -> Arguments:
        rows = torch.cat([tensor(*ROWS[name]), crowd(g, 2)])
        return pair(rows, rows.flip(0) if options else torch.cat([rows, crowd(g, 3)]), **options)

    return draw


for _name in ROWS:
    add(_name, "hostile quick" if _name == "non-finite" else "hostile")(_hostile(_name))
add("non-finite-elementwise", "hostile")(_hostile("non-finite", elementwise=True))
add("non-finite-xywh", "hostile", to=(PLAIN,))(_hostile("non-finite", fmt="xywh"))
add("zero-area-cxcywh", "hostile", to=(PLAIN,))(_hostile("zero-area", fmt="cxcywh"))


# Large.

add("large", "large")(lambda g: pair(boxes(g, 300, 1333, 800, 16), boxes(g, 400, 1333, 800, 16)))
add("large-elementwise", "large", to=(PLAIN,))(
    lambda g: pair(boxes(g, 5000, 1333, 800), boxes(g, 5000, 1333, 800), elementwise=True)
)


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    return lambda: {**pair(torch.rand(3, 4), torch.rand(5, 4)), **changes}


def _errors(formats: bool) -> tuple[ErrorCase, ...]:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("boxes1-rank", {"boxes1": torch.rand(4)}, r"boxes1 must be \[\.\.\., N, 4\]"),
        ("boxes1-width", {"boxes1": torch.rand(3, 5)}, r"boxes1 must be \[\.\.\., N, 4\], got \[3, 5\]"),
        ("boxes1-type", {"boxes1": [1, 2, 3, 4]}, r"boxes1 must be .*got list"),
        ("boxes1-integer", {"boxes1": torch.zeros(3, 4, dtype=torch.int64)}, r"boxes1 must be float16"),
        ("boxes2-rank", {"boxes2": torch.rand(4)}, r"boxes2 must be \[\.\.\., N, 4\]"),
        ("boxes2-width", {"boxes2": torch.rand(3, 3)}, r"boxes2 must be \[\.\.\., N, 4\]"),
        ("boxes2-integer", {"boxes2": torch.zeros(3, 4, dtype=torch.int32)}, r"boxes2 must be float16"),
        ("boxes2-device", {"boxes2": torch.rand(5, 4, device="meta")}, r"boxes2 must be on the same device as boxes1"),
        (
            "batches",
            {"boxes1": torch.rand(2, 3, 4), "boxes2": torch.rand(3, 5, 4)},
            r"leading dimensions of boxes1 and boxes2 must b",
        ),
        ("elementwise-rows", {"elementwise": True}, r"leading dimensions of boxes1 and boxes2 must broadcast"),
    ]
    if formats:
        cases += [
            ("format-unknown", {"fmt": "yxyx"}, r"fmt must be one of xyxy, xywh, cxcywh, got 'yxyx'"),
            ("format-rotated", {"fmt": "cxcywhr"}, r"fmt must be one of"),
        ]
    return tuple(ErrorCase(name, _refused(**changes), match) for name, changes, match in cases)


def _dispatched(op: str, **changes: object) -> Callable[[], Arguments]:
    def make() -> Arguments:
        found = {
            **pair(torch.rand(1, 3, 4), torch.rand(1, 5, 4)),
            "kind": 0,
            "fmt": 0,
            "elementwise": False,
            "eps": 0.0,
        }
        if op == "box_iou_backward":
            found["grad"] = torch.rand(1, 3, 5)
        return {**found, **changes}

    return make


#: Of the dispatcher ops, which the public functions never call so.
_BELOW = tuple(
    ErrorCase(f"{op}-{name}", _dispatched(op, **changes), match, op=op)
    for op, name, changes, match in (
        ("box_iou", "rank", {"boxes1": torch.rand(3, 4)}, r"boxes1 must be \[B, N, 4\]"),
        ("box_iou", "elementwise-rank", {"elementwise": True}, r"boxes1 must be \[N, 4\]"),
        ("box_iou", "integer", {"boxes2": torch.zeros(1, 5, 4).long()}, r"boxes2 must be float16"),
        ("box_iou", "batch", {"boxes2": torch.rand(2, 5, 4)}, r"must have the same batch size, got 1 and 2"),
        ("box_iou", "kind", {"kind": 4}, r"kind must be 0 to 3, got 4"),
        ("box_iou", "format", {"fmt": -1}, r"fmt must be 0 to 2, got -1"),
        ("box_iou_backward", "grad-shape", {"grad": torch.rand(1, 5, 3)}, r"grad must have the shape of the result"),
        ("box_iou_backward", "grad-type", {"grad": torch.rand(1, 3, 5).double()}, r"grad must be of the result's type"),
        ("box_iou_backward", "kind", {"kind": -1}, r"kind must be 0 to 3"),
    )
)


def _torchvision(name: str) -> Callable[..., torch.Tensor]:
    def peer(boxes1, boxes2, *, elementwise=False, **options):
        import torchvision

        function = getattr(torchvision.ops, name)
        if not elementwise:
            return function(boxes1, boxes2, **options)
        # It has no such form: the diagonal of all pairs, one by one.
        boxes1, boxes2 = torch.broadcast_tensors(boxes1, boxes2)
        return function(boxes1[..., None, :], boxes2[..., None, :], **options)[..., 0, 0]

    return peer


def _spec(function: Callable[..., torch.Tensor], cases: CaseList, errors: tuple[ErrorCase, ...]) -> OpSpec:
    return OpSpec(
        name=function.__name__,
        function=function,
        dispatcher_ops=("box_iou", "box_iou_backward"),
        cases=tuple(cases),
        errors=errors,
        data=("boxes1", "boxes2"),
        differentiable=("boxes1", "boxes2"),
        scale="outputs",
        widens=True,
        peer={"torchvision": _torchvision(function.__name__)},
    )


SPECS = (
    _spec(box_iou, PLAIN, (*_errors(formats=True), *_BELOW)),
    _spec(generalized_box_iou, GENERALIZED, _errors(formats=False)),
    _spec(distance_box_iou, DISTANCE, _errors(formats=False)),
    _spec(complete_box_iou, COMPLETE, _errors(formats=False)),
)
