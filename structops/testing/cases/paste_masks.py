"""Cases of pasting the masks of detections into their image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import paste_masks
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def arguments(
    g: torch.Generator, count: int, mask: tuple[int, ...], image_size: tuple[int, int], **options: Any
) -> Arguments:
    """Probabilities, and boxes that look out of the image here and there but are not left of it or above."""
    height, width = image_size
    of_image = boxes(g, count, width, height, 2, 0.8 * max(width, height))
    return {
        "masks": uniform(g, 0, 1, count, *mask),
        "boxes": torch.maximum(of_image, tensor(-9.0, -9.0, 1.0, 1.0)),
        "image_size": image_size,
        **options,
    }


def _case(name: str, tags: str, count: int, mask: tuple[int, ...], image_size: tuple[int, int], **options: Any) -> None:
    CASES.add(name, tags, lambda g: arguments(g, count, mask, image_size, **options))


_case("few", "quick", 2, (1, 4, 4), (9, 13))
_case("values", "quick", 2, (1, 5, 5), (12, 9), threshold=None)
_case("packed", "quick", 2, (6, 6), (11, 21), packed=True)
_case("packed-whole-bytes", "", 3, (7, 7), (13, 64), packed=True)
# Boxes of more than 128 pixels, which torch rounds otherwise, and of less; more than one band of rows.
_case("mask-rcnn", "", 6, (1, 28, 28), (200, 333))
_case("mask-rcnn-values", "", 5, (1, 28, 28), (150, 211), threshold=None)
_case("mask-rcnn-packed", "", 5, (1, 28, 28), (170, 237), packed=True)
_case("bands", "", 2, (1, 14, 14), (700, 1100), packed=True)
_case("shrunk", "", 5, (40, 40), (31, 45), threshold=None)
_case("wide-masks", "", 3, (5, 9), (40, 50), threshold=None)
_case("one-number", "", 4, (1, 1), (20, 30), threshold=None)
_case("no-padding", "", 4, (6, 6), (30, 40), padding=0, threshold=None)
_case("padding=3", "", 4, (6, 6), (30, 40), padding=3, threshold=None)
_case("threshold=0", "", 4, (6, 6), (30, 150), threshold=0.0)
_case("threshold-negative", "quick", 2, (3, 3), (7, 85), threshold=-0.25)
_case("threshold-negative-packed", "", 3, (6, 6), (30, 150), threshold=-0.25, packed=True)
_case("threshold-nan", "", 2, (4, 4), (9, 9), threshold=NAN)
_case("threshold=inf", "", 2, (4, 4), (9, 9), threshold=INF)
_case("one-row", "", 3, (1, 8, 8), (1, 70))
_case("one-column", "", 3, (1, 8, 8), (70, 1), packed=True)
_case("large", "large", 6, (1, 28, 28), (800, 1333))


def _scene(name: str, tags: str, of_boxes: torch.Tensor, image_size: tuple[int, int], **options: Any) -> None:
    def make(g: torch.Generator) -> Arguments:
        masks = uniform(g, 0, 1, len(of_boxes), 1, 7, 7)
        return {"masks": masks, "boxes": of_boxes.clone(), "image_size": image_size, **options}

    CASES.add(name, tags, make)


# Widths of 126 to 130 beside a height of 1; as long as the padded mask, which is copied.
_scene("at-the-limit", "", tensor(*([2.0, 3.0, 2.0 + 97 + i, 3.2] for i in range(5))), (9, 140), threshold=None)
_scene("same-size", "", tensor([2, 3, 8, 9], [2, 3, 8, 40], [2, 3, 50, 9]), (50, 60), threshold=None)
_scene("edges", "", tensor([0, 0, 40, 30], [39, 29, 40, 30], [0, 0, 1, 1], [-1, -1, 0, 0]), (30, 40), threshold=None)


@CASES.add("saturated", "")  # plateaus: weights must add up as torch's do
def _(g):
    found = arguments(g, 6, (1, 8, 8), (100, 140), threshold=0.75)
    return {**found, "masks": (found["masks"] > 0.3).double() * 0.75}


# Empty.

_case("no-masks", "empty quick", 0, (1, 4, 4), (9, 13))
_case("no-masks-values", "empty", 0, (4, 4), (9, 13), threshold=None)
_case("no-rows", "empty", 2, (1, 4, 4), (0, 13))
_case("no-columns", "empty", 2, (1, 4, 4), (9, 0), packed=True)

# Hostile.

HOSTILE = tensor(
    [NAN, 1, 5, 5],
    [1, 1, NAN, 5],
    [1, -INF, 5, INF],
    [-INF, 1, 5, 5],
    [9, 1, 5, 5],  # ends before it begins
    [1, 9, 5, 5],
    [3, 4, 3, 4],  # nothing but a corner
    [-50, 1, -40, 5],
    [1, -50, 5, -40],
    [90, 1, 95, 5],
    [1, 90, 5, 95],
    [-1e5, -1e5, 1e5, 1e5],
    [2, 2, 1e9, 1e9],
    [-1e18, 2, 1e18, 9],
    [-1e30, -1e30, 1e30, 1e30],
    [4, 1e30, 9, 1e30],
    [0, 0, 0, 0],
    [-1e-3, -1e-3, 1e-3, 1e-3],
)
_scene("hostile", "hostile quick", HOSTILE, (10, 12), threshold=None)
_scene("hostile-packed", "hostile", HOSTILE, (40, 50), packed=True)


@CASES.add("not-probabilities", "hostile")
def _(g):
    found = arguments(g, 6, (1, 6, 6), (40, 150), threshold=None)
    found["masks"].view(-1)[torch.arange(0, 216, 5)] = tensor(NAN, INF, -INF, 1e30, -1.0).repeat(9)[:44]
    return found


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    def make() -> Arguments:
        return {"masks": torch.rand(3, 1, 4, 4), "boxes": torch.rand(3, 4), "image_size": (9, 9), **changes}

    return make


ERRORS = (
    ErrorCase("masks-rank", _refused(masks=torch.rand(4, 4)), r"masks must be \[K, 1, h, w\] or \[K, h, w\]"),
    ErrorCase("masks-channels", _refused(masks=torch.rand(3, 2, 4, 4)), r"masks must be \[K, 1, h, w\]"),
    ErrorCase("masks-integer", _refused(masks=torch.zeros(3, 4, 4).int()), r"masks must be float16"),
    ErrorCase("masks-empty", _refused(masks=torch.rand(3, 4, 0)), r"masks must have at least one row and column"),
    ErrorCase("boxes-rank", _refused(boxes=torch.rand(4)), r"boxes must be \[K, 4\]"),
    ErrorCase("boxes-width", _refused(boxes=torch.rand(3, 5)), r"boxes must be \[K, 4\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(3, 4).int()), r"boxes must be float16"),
    ErrorCase("boxes-count", _refused(boxes=torch.rand(2, 4)), r"boxes must have one entry a mask, got 2 for 3"),
    ErrorCase("boxes-device", _refused(boxes=torch.rand(3, 4, device="meta")), r"boxes must be on the same device"),
    ErrorCase("image-size-length", _refused(image_size=(3, 9, 9)), r"image_size must be \(height, width\)"),
    ErrorCase("image-size-number", _refused(image_size=9), r"image_size must be \(height, width\), got 9"),
    ErrorCase("image-size-fraction", _refused(image_size=(9.5, 9)), r"image_size must be \(height, width\)"),
    ErrorCase("image-size-negative", _refused(image_size=(-1, 9)), r"image_size must be 0 or more, got -1 and 9"),
    ErrorCase("padding-negative", _refused(padding=-1), r"padding must be 0 or more, got -1"),
    ErrorCase("padding-enormous", _refused(padding=2**30), r"a mask with its padding must be smaller than 2\^31"),
    ErrorCase("packed-values", _refused(threshold=None, packed=True), r"packed results need a threshold"),
)


def _torchvision(masks, boxes, image_size, threshold=0.5, *, packed=False, padding=1):
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from structops.reference.paste_masks import pack_bits

    image = paste_masks_in_image(masks if masks.dim() == 4 else masks[:, None], boxes, image_size, padding)
    if threshold is None:
        return image
    above = image[:, 0] > threshold
    return pack_bits(above) if packed else above


SPECS = (
    OpSpec(
        name="paste_masks",
        function=paste_masks,
        dispatcher_ops=("paste_masks",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("masks",),
        compare="exact",
        widens=True,
        peer={"torchvision": _torchvision},
    ),
)
