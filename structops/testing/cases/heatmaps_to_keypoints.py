"""Cases of keypoint decoding. Random maps: a near tie, which rounding would decide, is unlikely."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import heatmaps_to_keypoints
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, features, tensor
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def peaked(g: torch.Generator, count: int, points: int, height: int, width: int) -> torch.Tensor:
    """A peak somewhere in each map, as a trained network has it, and noise."""
    noise = 0.2 * features(g, count, points, height, width)
    y = torch.arange(height).view(-1, 1) - torch.rand(count, points, 1, 1, generator=g) * height
    x = torch.arange(width) - torch.rand(count, points, 1, 1, generator=g) * width
    return 6 * torch.exp(-(x * x + y * y) / 8).double() - 2 + noise


def _maps(
    count: int, points: int, height: int, width: int, *, largest: float = 30.0, draw: Any = features
) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        return {
            "maps": draw(g, count, points, height, width),
            "rois": boxes(g, count, 100, 80, smallest=2.0, largest=largest),
        }

    return make


CASES.add("rois=2", "quick", _maps(2, 3, 5, 6, largest=12.0))
CASES.add("larger", "quick", _maps(3, 2, 7, 9))
CASES.add("peaks", "", _maps(4, 3, 14, 14, draw=peaked))
CASES.add("smaller-than-the-map", "", _maps(3, 2, 20, 31, largest=9.0))
CASES.add("rois=40", "", _maps(40, 1, 6, 5))
CASES.add("keypoint-rcnn", "", _maps(1, 2, 56, 56, draw=peaked, largest=70.0))
CASES.add("keypoint-rcnn-17", "large", _maps(9, 17, 56, 56, draw=peaked, largest=400.0))
CASES.add("noise", "large", _maps(5, 3, 56, 56, largest=300.0))
CASES.add("wide-map", "large", _maps(2, 1, 3, 90, largest=400.0))


# Along a side of one pixel all of a map is the same, and rounding decides; so RoIs have no more than a pixel there.
def _thin(height: int, width: int) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        rois = boxes(g, 3, 100, 80, smallest=5.0, largest=30.0)
        for side, pixels in ((0, width), (1, height)):
            if pixels == 1:
                rois[:, 2 + side] = rois[:, side] + 0.7
        return {"maps": features(g, 3, 2, height, width), "rois": rois}

    return make


CASES.add("one-pixel", "", _thin(1, 1))
CASES.add("one-row", "", _thin(1, 13))
CASES.add("one-column", "", _thin(13, 1))


@CASES.add("whole-pixels")
def _(g):
    return {"maps": features(g, 3, 2, 6, 6), "rois": tensor([3, 4, 15, 16], [0, 0, 6, 6], [-5, 2, 1, 20])}


@CASES.add("zeros")  # all equal: the first
def _(g):
    return {"maps": torch.zeros(2, 2, 6, 5).double(), "rois": boxes(g, 2, 100, 80, largest=20)}


@CASES.add("no-rois", "empty quick")
def _(g):
    return {"maps": torch.empty(0, 3, 5, 5).double(), "rois": torch.empty(0, 4).double()}


@CASES.add("no-keypoints", "empty")
def _(g):
    return {"maps": torch.empty(2, 0, 5, 5).double(), "rois": boxes(g, 2, 100, 80)}


@CASES.add("inverted-and-empty", "hostile quick")
def _(g):
    return {"maps": features(g, 3, 2, 4, 5), "rois": tensor([9, 9, 2, 3], [5, 5, 5, 5], [-7, 3, -7, 12])}


@CASES.add("non-finite-rois", "hostile")
def _(g):
    rows = [[NAN, 0, 9, 9], [0, NAN, 9, 9], [0, 0, INF, 9], [0, -INF, 9, 9], [INF, 0, INF, 9], [1, 2, 9, 9]]
    return {"maps": features(g, len(rows), 2, 4, 5), "rois": tensor(*rows)}


@CASES.add("non-finite-maps", "hostile")
def _(g):
    maps = features(g, 4, 2, 6, 7)
    maps[0, 0, 2, 3] = NAN
    maps[1, 1, 4, 0] = NAN
    maps[1, 0] = NAN
    maps[2] = -INF
    return {"maps": maps, "rois": boxes(g, 4, 100, 80, largest=20)}


@CASES.add("huge-rois", "hostile large")
def _(g):
    # A peak would be so flat that rounding decides.
    rows = [[0, 0, 1e9, 5], [-1e30, 0, 1e30, 7], [0, 0, 3, 1e9]]
    return {"maps": torch.zeros(len(rows), 1, 12, 12).double(), "rois": tensor(*rows)}


def _refused(**changes: Any) -> Callable[[], Arguments]:
    good = {"maps": torch.rand(2, 3, 5, 5), "rois": torch.rand(2, 4)}
    return lambda: {**good, **changes}


ERRORS = (
    ErrorCase("maps-rank", _refused(maps=torch.rand(2, 5, 5)), r"maps must be \[K, P, H, W\]"),
    ErrorCase("maps-integer", _refused(maps=torch.zeros(2, 3, 5, 5).int()), r"maps must be float16"),
    ErrorCase("maps-without-pixels", _refused(maps=torch.rand(2, 3, 0, 5)), r"maps must be 1 to 4096 pixels"),
    ErrorCase("maps-too-large", _refused(maps=torch.zeros(1).expand(2, 3, 4097, 1)), r"maps must be 1 to 4096"),
    ErrorCase("rois-width", _refused(rois=torch.rand(2, 5)), r"rois must be \[K, 4\]"),
    ErrorCase("rois-length", _refused(rois=torch.rand(3, 4)), r"rois must be \[K, 4\].* 2 maps"),
    ErrorCase("rois-integer", _refused(rois=torch.zeros(2, 4).int()), r"rois must be float16"),
    ErrorCase("rois-device", _refused(rois=torch.rand(2, 4, device="meta")), r"rois must be on the same device"),
)

SPECS = (
    OpSpec(
        name="heatmaps_to_keypoints",
        function=heatmaps_to_keypoints,
        dispatcher_ops=("heatmaps_to_keypoints",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("maps",),
        scale="outputs",
        widens=True,
    ),
)
