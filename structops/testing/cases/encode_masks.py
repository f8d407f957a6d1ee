"""Cases of the run-length encoding of masks. None is random noise alone: runs of every length have to occur."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import encode_masks
from structops.reference.paste_masks import pack_bits
from structops.testing.cases._draw import CaseList
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def blobs(g: torch.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """``[K, H, W]`` bool: an ellipse each, some of them cut by the edges, with a frayed outline."""
    y, x = torch.meshgrid(torch.linspace(0, 1, max(height, 1)), torch.linspace(0, 1, max(width, 1)), indexing="ij")
    centre, size = torch.rand(count, 2, 1, 1, generator=g), 0.1 + 0.5 * torch.rand(count, 2, 1, 1, generator=g)
    distance = ((y - centre[:, 0]) / size[:, 0]) ** 2 + ((x - centre[:, 1]) / size[:, 1]) ** 2
    return (distance + 0.1 * torch.rand(distance.shape, generator=g) < 1)[:, :height, :width]


def noise(g: torch.Generator, count: int, height: int, width: int, share: float = 0.5) -> torch.Tensor:
    return torch.rand(count, height, width, generator=g) < share


Draw = Callable[..., torch.Tensor]


def _case(name: str, tags: str, draw: Draw, size: tuple[int, int, int], packed: bool = False, **options: Any) -> None:
    def make(g: torch.Generator) -> Arguments:
        masks = draw(g, *size, **options)
        return {"masks": pack_bits(masks), "width": size[2]} if packed else {"masks": masks}

    CASES.add(name, tags, make)


_case("few", "quick", blobs, (2, 7, 9))
_case("packed", "quick", blobs, (2, 6, 13), packed=True)
_case("noise", "quick", noise, (2, 9, 11))
_case("blobs", "", blobs, (5, 130, 190))
_case("blobs-packed", "", blobs, (5, 130, 190), packed=True)
_case("squares-of-64", "", blobs, (3, 128, 192))
_case("one-beyond-a-square", "", blobs, (3, 65, 129))
_case("one-less-than-a-square", "", blobs, (3, 63, 127), packed=True)
_case("noise-everywhere", "", noise, (3, 100, 90))
_case("noise-packed", "", noise, (3, 90, 100), packed=True)
_case("few-pixels", "", noise, (4, 150, 170), share=0.001)
_case("few-holes", "", noise, (4, 150, 170), share=0.999)
_case("nothing", "", noise, (3, 70, 80), share=0.0)
_case("everything", "quick", noise, (2, 5, 6), share=2.0)
_case("everything-packed", "", noise, (2, 70, 80), share=2.0, packed=True)
_case("one-row", "", noise, (3, 1, 200))
_case("one-column", "", noise, (3, 200, 1))
_case("one-column-packed", "", noise, (3, 200, 1), packed=True)
_case("one-pixel", "", noise, (5, 1, 1))
_case("large", "large", blobs, (3, 800, 1333))
_case("large-noise", "large", noise, (1, 800, 1333), share=0.3)


@CASES.add("long-runs")  # numbers of one to five characters, and differences of either sign
def _(g):
    lengths = torch.tensor([1, 15, 16, 17, 500, 3, 20000, 511, 512, 1, 90000, 16, 16385, 40, 33000])
    pixels = (torch.arange(len(lengths)) % 2 == 1).repeat_interleave(lengths)
    return {"masks": torch.nn.functional.pad(pixels, (0, 200 * 850 - len(pixels))).reshape(1, 850, 200).mT.contiguous()}


@CASES.add("any-byte")
def _(g):
    return {
        "masks": blobs(g, 3, 40, 50).to(torch.uint8) * torch.randint(1, 256, (3, 40, 50), generator=g).to(torch.uint8)
    }


# Empty.

_case("no-masks", "empty quick", noise, (0, 5, 6))
_case("no-masks-packed", "empty", noise, (0, 5, 6), packed=True)
_case("no-rows", "empty", noise, (3, 0, 6))
_case("no-columns", "empty", noise, (3, 6, 0))
_case("no-columns-packed", "empty", noise, (3, 6, 0), packed=True)

# Hostile: there are no numbers to be so but bits that are no pixels.


@CASES.add("bits-beyond-the-width", "hostile quick")
def _(g):
    packed = pack_bits(blobs(g, 2, 8, 12))
    packed[..., -1] |= 0xF0
    return {"masks": packed, "width": 12}


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    return lambda: {"masks": torch.zeros(2, 4, 3, dtype=torch.uint8), **changes}


ERRORS = (
    ErrorCase("masks-rank", _refused(masks=torch.zeros(4, 3).bool()), r"masks must be \[K, H, W\]"),
    ErrorCase("masks-floating", _refused(masks=torch.rand(2, 4, 3)), r"masks must be bool or uint8"),
    ErrorCase("masks-packed-bool", _refused(masks=torch.zeros(2, 4, 3).bool(), width=20), r"masks must be uint8"),
    ErrorCase("width", _refused(width=25), r"width must belong to masks of 3 bytes a row, got 25"),
    ErrorCase("width-negative", _refused(width=-8), r"width must belong to masks of 3 bytes a row, got -8"),
    ErrorCase(
        "too-many-pixels",
        _refused(masks=torch.zeros(1, 1, 1, dtype=torch.bool).expand(1, 2**16, 2**15)),
        r"masks must have fewer than 2\^31 pixels",
    ),
)


def _pycocotools(masks, *, width=None):
    import numpy as np
    from pycocotools import mask as coco

    flags = masks.numpy().view(np.uint8)
    if width is not None:
        flags = np.unpackbits(flags, axis=-1, count=width, bitorder="little")
    texts = [coco.encode(np.asfortranarray(flag != 0))["counts"] for flag in flags]
    offsets = torch.tensor([0, *map(len, texts)]).cumsum(0)
    return torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8), offsets


SPECS = (
    OpSpec(
        name="encode_masks",
        function=encode_masks,
        dispatcher_ops=("encode_masks",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=(),  # flags and bits, whatever the type under test
        compare="exact",
        syncs=True,
        peer={"pycocotools": _pycocotools},
        dtypes=(torch.float32, torch.float64),
    ),
)
