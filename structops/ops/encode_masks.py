"""Run-length encoding of masks in COCO's compressed form: public functions, fake kernel and checks."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from structops._backend import Op
from structops._checks import require

NAME = "encode_masks"
_MOST_PIXELS = 2**31 - 2


def encode_masks(masks: torch.Tensor, *, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Run-length encoding of masks in the compressed form of COCO, as tensors.

    Byte for byte what ``pycocotools.mask.encode`` gives for masks of 0 and 1. How long the result is depends on the
    masks, so on a GPU this waits for it (twice: for the number of runs, and of characters). Not differentiable.

    Args:
        masks: ``[K, H, W]`` bool or uint8, a pixel belongs to the object where it is not 0; or with a ``width`` packed
            uint8 ``[K, H, ceil(width / 8)]``, pixel 8 i + j in bit j (from the lowest) of byte i, as
            :func:`paste_masks` returns it. What bits beyond the width hold does not matter.
        width: of packed masks, in pixels; ``None``: masks are not packed.

    Returns:
        ``(text, offsets)``: uint8 ``[n]`` the texts of all masks, one after another; int64 ``[K + 1]`` where each
        begins, and where the last ends.

    Raises:
        RuntimeError: for a wrong rank or dtype, a ``width`` that does not belong to the masks, or masks of 2^31 pixels
            and more.
    """
    return _encode_masks(masks, width)


def masks_to_rle(masks: torch.Tensor, *, width: int | None = None) -> list[dict[str, Any]]:
    """Masks as COCO's tools take them: ``pycocotools.mask.encode`` of each, without the copy in Fortran order.

    Args:
        masks: as for :func:`encode_masks`.
        width: as for :func:`encode_masks`.

    Returns:
        ``{"size": [H, W], "counts": bytes}`` of each mask. A list of Python objects: it waits for a GPU, and cannot be
        compiled; :func:`encode_masks` can.

    Raises:
        RuntimeError: as :func:`encode_masks`.
    """
    text, offsets = encode_masks(masks, width=width)
    every, ends = text.cpu().numpy().data, offsets.tolist()
    size = [int(masks.shape[1]), int(masks.shape[2] if width is None else width)]
    return [{"size": list(size), "counts": bytes(every[a:b])} for a, b in itertools.pairwise(ends)]


def _check(masks, width) -> None:
    require(masks.dim() == 3, lambda: f"{NAME}: masks must be [K, H, W], got {list(masks.shape)}")
    if width is not None:
        require(
            masks.dtype == torch.uint8,
            lambda: f"{NAME}: masks must be uint8, eight pixels to a byte, where a width is given, got {masks.dtype}",
        )
        message = lambda: f"{NAME}: width must belong to masks of {masks.shape[2]} bytes a row, got {width}"  # noqa: E731
        require(width >= 0, message)
        require(masks.shape[2] == (width + 7) // 8, message)
    else:
        require(
            masks.dtype in (torch.bool, torch.uint8),
            lambda: f"{NAME}: masks must be bool or uint8, got {masks.dtype}",
        )
    pixels = masks.shape[1] * (masks.shape[2] if width is None else width)
    require(pixels < _MOST_PIXELS, lambda: f"{NAME}: masks must have fewer than 2^31 pixels, got {list(masks.shape)}")


def _fake(masks, width):
    length = torch.library.get_ctx().new_dynamic_size()
    return masks.new_empty(length, dtype=torch.uint8), masks.new_empty(masks.shape[0] + 1, dtype=torch.int64)


_encode_masks = Op(NAME, module=NAME, check=_check, fake=_fake)
