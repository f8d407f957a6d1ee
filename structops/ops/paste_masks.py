"""Masks of detections pasted into their image: public function, fake kernel and checks."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require

NAME = "paste_masks"
_LARGEST = (2**31 - 1) // 2


def paste_masks(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    image_size: tuple[int, int],
    threshold: float | None = 0.5,
    *,
    packed: bool = False,
    padding: int = 1,
) -> torch.Tensor:
    """Stretches the mask of each detection over its box and cuts it at a threshold, as Mask R-CNN shows its results.

    All detections at once, without an image of floating-point numbers in between. Not differentiable.

    Args:
        masks: ``[K, 1, h, w]`` or ``[K, h, w]`` probabilities; float16, bfloat16, float32 or float64. Halves are
            interpolated in float32.
        boxes: ``[K, 4]`` (x1, y1, x2, y2) in pixels of the image, any floating type.
        image_size: (height, width) of the image.
        threshold: a pixel belongs to the object where its interpolated probability is **greater**. ``None``: the
            probabilities themselves are returned.
        packed: one bit a pixel instead of a byte; needs a threshold.
        padding: zeros around each mask, in its own pixels; its box is widened to match. Between the mask's outermost
            pixels and these zeros values fall off: as far as ``padding``, they reach beyond ``boxes``.

    Returns:
        bool ``[K, height, width]``; packed uint8 ``[K, height, ceil(width / 8)]``, pixel 8 i + j in bit j (from the
        lowest) of byte i, as ``numpy.unpackbits(..., axis=-1, count=width, bitorder="little")`` expects it, bits beyond
        the width 0; without a threshold ``[K, 1, height, width]`` of the masks' type, float32 for halves.
        A pixel outside of its detection's widened box is 0. A box with a coordinate that is NaN, infinite or 2^62 and
        more, or that ends before it begins, has no pixels.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, a negative ``image_size`` or ``padding``, or ``packed``
            without a threshold.

    Note:
        Numbers are those of ``torchvision.models.detection.roi_heads.paste_masks_in_image`` to the bit, on any CPU that
        has fused multiply-adds (where torch's own kernel uses them), hence the same on every device.
    """
    require(
        isinstance(masks, torch.Tensor) and masks.dim() in (3, 4) and (masks.dim() == 3 or bool(masks.shape[1] == 1)),
        lambda: (
            f"{NAME}: masks must be [K, 1, h, w] or [K, h, w], got "
            f"{list(masks.shape) if isinstance(masks, torch.Tensor) else type(masks).__name__}"
        ),
    )
    require(
        isinstance(image_size, list | tuple)
        and len(image_size) == 2
        and all(isinstance(side, (*_checks.WHOLE_NUMBERS, torch.Tensor)) for side in image_size),
        lambda: f"{NAME}: image_size must be (height, width), got {image_size}",
    )
    planes = masks[:, 0] if masks.dim() == 4 else masks
    height, width = image_size
    return _paste_masks(planes, boxes, height, width, threshold, packed, padding)


def _check(masks, boxes, height, width, threshold, packed, padding) -> None:
    require(masks.dim() == 3, lambda: f"{NAME}: masks must be [K, h, w], got {list(masks.shape)}")
    _checks.floating(NAME, "masks", masks)
    require(
        boxes.dim() == 2 and boxes.shape[1] == 4,
        lambda: f"{NAME}: boxes must be [K, 4] (x1, y1, x2, y2), got {list(boxes.shape)}",
    )
    _checks.floating(NAME, "boxes", boxes)
    require(
        boxes.shape[0] == masks.shape[0],
        lambda: f"{NAME}: boxes must have one entry a mask, got {boxes.shape[0]} for {masks.shape[0]} masks",
    )
    _checks.same_device(NAME, "boxes", boxes, "masks", masks)
    for size in masks.shape[1:]:
        require(size > 0, lambda: f"{NAME}: masks must have at least one row and column, got {list(masks.shape)}")
    for size in (height, width):
        require(size >= 0, lambda: f"{NAME}: image_size must be 0 or more, got {height} and {width}")
    require(padding >= 0, lambda: f"{NAME}: padding must be 0 or more, got {padding}")
    small = lambda: f"{NAME}: a mask with its padding must be smaller than 2^31, got {list(masks.shape)}, {padding}"  # noqa: E731
    for size in (*masks.shape[1:], 2 * padding):
        require(size < _LARGEST, small)
    require(threshold is not None or not packed, lambda: f"{NAME}: packed results need a threshold")


def _fake(masks, boxes, height, width, threshold, packed, padding):
    count = masks.shape[0]
    if threshold is None:
        return masks.new_empty((count, 1, height, width), dtype=torch.promote_types(masks.dtype, torch.float32))
    if packed:
        return masks.new_empty((count, height, (width + 7) // 8), dtype=torch.uint8)
    return masks.new_empty((count, height, width), dtype=torch.bool)


_paste_masks = Op(NAME, module=NAME, check=_check, fake=_fake)
