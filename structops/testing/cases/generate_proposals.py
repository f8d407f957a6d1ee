"""Cases of the region proposal stage.

Logits on a coarse grid, so that ties are common, wherever a case does not say otherwise. Levels are listed from fine to
coarse by their (height, width); strides are those of a pyramid over an image of 64 pixels or so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from structops.ops import generate_proposals
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
Sizes = Sequence[tuple[int, int]]
Change = Callable[[torch.Generator, Arguments], object]


def cells(cell: int, size: float) -> torch.Tensor:
    """``[cell, 4]`` about the origin, whole numbers as torchvision rounds them: ratios 0.5, 1, 2 and so on."""
    ratio = torch.tensor([2.0 ** (i - cell // 2) for i in range(cell)], dtype=torch.float64).sqrt()
    half = torch.stack([size / ratio, size * ratio], 1) / 2
    return torch.cat([-half, half], 1).round()


def head(g: torch.Generator, images: int, sizes: Sizes, cell: int = 3, side: int = 64, **options: Any) -> Arguments:
    """A head's maps over images of about ``side`` pixels, cell anchors and strides."""
    logits = [
        torch.randint(-12, 8, (images, cell, h, w), generator=g).double() / 4
        if h * w
        else torch.zeros(images, cell, h, w)
        for h, w in sizes
    ]
    deltas = [torch.randn(images, 4 * cell, h, w, generator=g, dtype=torch.float64) * 0.3 for h, w in sizes]
    strides = [(max(side // max(h, 1), 1), max(side // max(w, 1), 1)) for h, w in sizes]
    shapes = torch.tensor([(side - 3 * i, side + 2 - i) for i in range(images)], dtype=torch.int64).view(images, 2)
    return {
        "objectness": [x.double() for x in logits],
        "deltas": deltas,
        "image_sizes": shapes,
        "anchors": [cells(cell, 2.0 * max(stride)) for stride in strides],
        "strides": strides,
        "pre_nms_top_n": 12,
        "post_nms_top_n": 10,
        **options,
    }


def add(name: str, tags: str = "", sizes: Sizes = ((8, 9), (4, 5), (2, 3)), images: int = 2, **options: Any):
    """A head of these sizes; the decorated function changes its arguments in place."""

    def register(change: Change) -> Change:
        def make(g: torch.Generator) -> Arguments:
            arguments = head(g, images, sizes, **options)
            change(g, arguments)
            return arguments

        CASES.add(name, tags, make)
        return change

    return register


def plain(name: str, tags: str = "", **options: Any) -> None:
    add(name, tags, **options)(lambda g, arguments: None)


def materialised(arguments: Arguments) -> list[torch.Tensor]:
    """``[Hl * Wl * A, 4]`` of each level, from the cell anchors and strides."""
    found = []
    for cell, (sy, sx), map_ in zip(arguments["anchors"], arguments["strides"], arguments["objectness"], strict=True):
        y, x = torch.meshgrid(torch.arange(map_.shape[2]) * sy, torch.arange(map_.shape[3]) * sx, indexing="ij")
        found.append((torch.stack([x, y, x, y], 2)[:, :, None] + cell).reshape(-1, 4))
    return found


# Typical.

plain("two-levels", "quick", sizes=[(3, 4), (2, 2)], images=1, pre_nms_top_n=6, post_nms_top_n=5)
plain("three-levels", "quick")
plain("one-level-one-anchor", sizes=[(9, 7)], cell=1, images=3, pre_nms_top_n=40, post_nms_top_n=20)
plain("eight-levels", sizes=[(8 - i, 8 - i) for i in range(8)], pre_nms_top_n=9)
plain("fewer-proposals-than-room", post_nms_top_n=200)
plain("everything-into-nms", pre_nms_top_n=1000, post_nms_top_n=60, nms_thresh=0.5)
plain("weights-and-clip", weights=(10.0, 8.0, 5.0, 4.0), bbox_xform_clip=0.02)
plain("score-threshold", score_thresh=0.5)
plain("size-threshold", min_size=9.0, pre_nms_top_n=60)
plain("thresholds-0", nms_thresh=0.0, min_size=0.0)
plain("large-threshold", nms_thresh=1.5)


@add("float-image-sizes")
def _(g, arguments):
    arguments["image_sizes"] = arguments["image_sizes"].double() - 0.25


@add("pairs-of-image-sizes")
def _(g, arguments):
    arguments["image_sizes"] = [(48, 64), (64, 40)]


@add("given-anchors", "quick")
def _(g, arguments):
    arguments["anchors"], arguments["strides"] = materialised(arguments), None


@add("float32-anchors")  # a type of their own
def _(g, arguments):
    arguments["anchors"] = [a.float() for a in arguments["anchors"]]


@add("given-boxes", "quick")
def _(g, arguments):
    for level, map_ in enumerate(arguments["deltas"]):
        images, channels, height, width = map_.shape
        count = images * channels // 4 * height * width
        found = boxes(g, count, 64, 64, smallest=4).view(images, channels // 4, height, width, 4)
        arguments["deltas"][level] = found.permute(0, 1, 4, 2, 3).reshape(map_.shape)
    arguments["anchors"] = arguments["strides"] = None


# Ties.


@add("equal-logits", "quick", pre_nms_top_n=20)
def _(g, arguments):
    for map_ in arguments["objectness"]:
        map_.fill_(0.5)


@add("saturated-logits", pre_nms_top_n=30)  # their sigmoids are equal, the logits are not
def _(g, arguments):
    for map_ in arguments["objectness"]:
        map_.mul_(8).add_(24)


@add("signed-zeros")
def _(g, arguments):
    for map_ in arguments["objectness"]:
        map_.copy_(torch.where(torch.rand(map_.shape, generator=g) < 0.5, 0.0, -0.0))


@add("distinct-logits", sizes=[(16, 20), (8, 10)], pre_nms_top_n=100, post_nms_top_n=50)
def _(g, arguments):
    for map_ in arguments["objectness"]:
        map_.copy_(torch.randperm(map_.numel(), generator=g).view(map_.shape) / 64 - 8)


# Empty.

plain("no-images", "empty quick", images=0)
plain("no-images-in-a-list", "empty", images=0, image_sizes=[])
plain("an-empty-level", "empty", sizes=[(6, 7), (0, 4), (2, 3)])
plain("no-cells", "empty", sizes=[(0, 4), (3, 0)])
plain("no-anchors", "empty", cell=0)
plain("none-before-nms", "empty", pre_nms_top_n=0)
plain("none-after-nms", "empty", post_nms_top_n=0)
plain("all-too-small", "empty", min_size=1e4)
plain("all-below-threshold", "empty", score_thresh=1.5)


@add("empty-images", "empty")  # of no extent: every box is clipped to nothing
def _(g, arguments):
    arguments["image_sizes"] = torch.zeros(2, 2, dtype=torch.int64)


# Hostile.


def _sprinkle(g: torch.Generator, maps: list[torch.Tensor], values: Sequence[float]) -> None:
    for map_ in maps:
        at = torch.rand(map_.shape, generator=g) < 0.3
        map_[at] = torch.tensor(values, dtype=map_.dtype)[torch.randint(len(values), (int(at.sum()),), generator=g)]


@add("nan-logits", "hostile quick", pre_nms_top_n=60)
def _(g, arguments):
    _sprinkle(g, arguments["objectness"], [NAN])


@add("infinite-logits", "hostile", pre_nms_top_n=60)
def _(g, arguments):
    _sprinkle(g, arguments["objectness"], [INF, -INF])


@add("non-finite-deltas", "hostile quick", pre_nms_top_n=60)
def _(g, arguments):
    _sprinkle(g, arguments["deltas"], [NAN, INF, -INF])


@add("huge-deltas", "hostile", pre_nms_top_n=60)
def _(g, arguments):
    _sprinkle(g, arguments["deltas"], [6e4, -6e4, 1e30, -1e30])


@add("hostile-anchors", "hostile", pre_nms_top_n=60)
def _(g, arguments):
    arguments["anchors"], arguments["strides"] = materialised(arguments), None
    _sprinkle(g, arguments["anchors"], [NAN, INF, 1e30, -1e30])


@add("hostile-image-sizes", "hostile", images=4)
def _(g, arguments):
    arguments["image_sizes"] = torch.tensor([[NAN, 60.0], [INF, INF], [-5.0, 60.0], [60.0, 60.0]], dtype=torch.float64)


# Large.


# Few are large enough to take part: the definition of NMS is slow.


@add("a-pyramid", "large", sizes=[(100, 168), (50, 84), (25, 42)], side=800, pre_nms_top_n=1000, min_size=110)
def _(g, arguments):
    for map_ in arguments["objectness"]:
        map_.copy_(uniform(g, -8, 4, *map_.shape))


plain("top-n-beyond-2048", "large", sizes=[(40, 42), (25, 42)], side=320, pre_nms_top_n=2100, min_size=50)


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    def make() -> Arguments:
        arguments: Arguments = {
            "objectness": [torch.rand(2, 3, 4, 5), torch.rand(2, 3, 2, 3)],
            "deltas": [torch.rand(2, 12, 4, 5), torch.rand(2, 12, 2, 3)],
            "image_sizes": torch.tensor([[32, 40], [32, 40]]),
            "anchors": [torch.rand(3, 4), torch.rand(3, 4)],
            "strides": [(8, 8), (16, 16)],
        }
        return {**arguments, **changes}

    return make


_MAPS, _DELTAS = (torch.rand(2, 3, 4, 5), torch.rand(2, 3, 2, 3)), (torch.rand(2, 12, 4, 5), torch.rand(2, 12, 2, 3))
_ERRORS: tuple[tuple[str, dict[str, object], str], ...] = (
    ("no-levels", {"objectness": []}, r"objectness must be 1 to 8 maps, got 0"),
    ("nine-levels", {"objectness": [_MAPS[0]] * 9, "deltas": [_DELTAS[0]] * 9}, r"objectness must be 1 to 8 maps"),
    ("one-tensor", {"objectness": _MAPS[0]}, r"objectness must be a list of tensors"),
    ("objectness-rank", {"objectness": [_MAPS[0], _MAPS[1][0]]}, r"objectness\[1\] must be \[B, A, H, W\]"),
    ("objectness-batch", {"objectness": [_MAPS[0], _MAPS[1][:1]]}, r"objectness\[1\] must be \[B, A, H, W\]"),
    ("objectness-dtype", {"objectness": [m.int() for m in _MAPS]}, r"objectness must be float16"),
    ("objectness-dtypes", {"objectness": [_MAPS[0], _MAPS[1].double()]}, r"objectness\[1\] must have the dtype"),
    ("deltas-number", {"deltas": [_DELTAS[0]]}, r"deltas must be one map for each"),
    ("deltas-channels", {"deltas": [_DELTAS[0], _DELTAS[1][:, :8]]}, r"deltas\[1\] must be \[B, 4A, H, W\]"),
    ("deltas-size", {"deltas": [_DELTAS[0], _DELTAS[1][:, :, :1]]}, r"deltas\[1\] must be \[B, 4A, H, W\]"),
    ("deltas-dtype", {"deltas": [_DELTAS[0].double(), _DELTAS[1]]}, r"deltas\[0\] must have the dtype"),
    ("anchors-number", {"anchors": [torch.rand(3, 4)]}, r"anchors must be one tensor for each level"),
    ("anchors-rows", {"anchors": [torch.rand(3, 4), torch.rand(4, 4)]}, r"anchors\[1\] must be \[A, 4\] = \[3, 4\]"),
    ("anchors-all-rows", {"strides": None}, r"anchors\[0\] must be \[H \* W \* A, 4\] = \[60, 4\]"),
    ("anchors-dtype", {"anchors": [torch.ones(3, 4).int()] * 2}, r"anchors\[0\] must be float"),
    ("strides-number", {"strides": [(8, 8)]}, r"strides must be a pair \(y, x\) for each level"),
    ("strides-without-anchors", {"anchors": None}, r"strides must be a pair \(y, x\) for each level of anchors"),
    ("sizes-rows", {"image_sizes": torch.ones(1, 2)}, r"image_sizes must be \[B, 2\]"),
    ("sizes-width", {"image_sizes": torch.ones(2, 3)}, r"image_sizes must be \[B, 2\]"),
    ("sizes-dtype", {"image_sizes": torch.ones(2, 2, dtype=torch.bool)}, r"image_sizes must be of an integer or float"),
    ("sizes-pairs", {"image_sizes": [(32, 40), (32, 40, 3)]}, r"image_sizes must be \[B, 2\]"),
    ("pre", {"pre_nms_top_n": -1}, r"pre_nms_top_n must not be negative"),
    ("post", {"post_nms_top_n": -1}, r"post_nms_top_n must be a whole number from 0"),
    ("post-absurd", {"post_nms_top_n": 2**40}, r"post_nms_top_n must be a whole number from 0 to 2147483647"),
    ("strides-one", {"strides": 8}, r"strides must be a number below 2\^31 or a pair \(y, x\) for each level, got 8"),
    ("strides-negative", {"strides": [8, -8]}, r"strides must be a number below 2\^31"),
    ("strides-absurd", {"strides": [8, (8, 2**40)]}, r"strides must be a number below 2\^31"),
    ("sizes-nan", {"image_sizes": [(32, NAN), (32, 40)]}, r"image_sizes must be numbers of 0 or more, got nan"),
    ("sizes-text", {"image_sizes": [("32", 40), (32, 40)]}, r"image_sizes must be numbers of 0 or more, got 32"),
    ("min-size-nan", {"min_size": NAN}, r"min_size must be a number, got NaN"),
    ("score-threshold-nan", {"score_thresh": NAN}, r"score_thresh must be a number, got NaN"),
    ("clip-nan", {"bbox_xform_clip": NAN}, r"bbox_xform_clip must be a number, got NaN"),
    ("clip-text", {"bbox_xform_clip": "4"}, r"bbox_xform_clip must be a number, got str"),
    ("threshold", {"nms_thresh": -0.1}, r"nms_thresh must be 0 or more"),
    ("threshold-nan", {"nms_thresh": NAN}, r"nms_thresh must be a number, got NaN"),
    ("weights", {"weights": (1.0, 1.0, 1.0)}, r"weights must be 4 finite numbers"),
    ("weights-zero", {"weights": (1.0, 1.0, 0.0, 1.0)}, r"weights must be 4 finite numbers"),
    ("weights-one", {"weights": 1.0}, r"weights must be 4 finite numbers"),
)

SPECS = (
    OpSpec(
        name="generate_proposals",
        function=generate_proposals,
        dispatcher_ops=("generate_proposals",),
        cases=tuple(CASES),
        errors=tuple(ErrorCase(name, _refused(**changes), match) for name, changes, match in _ERRORS),
        data=("objectness", "deltas"),
        layouts=("objectness", "deltas"),
        compare="exact",
        widens=True,
        own_device=True,
    ),
)
