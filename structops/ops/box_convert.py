"""Box formats and clipping: a few operations of torch's own each.

No kernels: both are bound by launches and memory, and stand beside work that costs a hundred times as much. What other
ops need of them (decoding, proposals, detections) those kernels do on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops import _checks
from structops._checks import require

FORMATS = ("xyxy", "xywh", "cxcywh")


def box_convert(boxes: torch.Tensor, in_fmt: str, out_fmt: str) -> torch.Tensor:
    """Boxes in another format.

    Args:
        boxes: ``[..., 4]``; float16, bfloat16, float32 or float64. Halves are computed in float32 and rounded once.
        in_fmt: ``"xyxy"`` (corners), ``"xywh"`` (first corner, width, height) or ``"cxcywh"`` (centre, width, height).
        out_fmt: likewise.

    Returns:
        ``[..., 4]`` of the same type, never the argument's own memory. Differentiable.

    Raises:
        RuntimeError: for a wrong shape or dtype, or an unknown format.

    Note:
        float32 and float64 results agree with ``torchvision.ops.box_convert`` to the bit. It takes no
        rotated formats.
    """
    _check("box_convert", boxes)
    for name, fmt in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        require(
            fmt in FORMATS,
            lambda name=name, fmt=fmt: f"box_convert: {name} must be one of {', '.join(FORMATS)}, got {fmt!r}",  # type: ignore[misc]
        )
    if in_fmt == out_fmt:
        return boxes.clone()
    first, second = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).split(2, -1)
    if in_fmt == "xywh":
        second = first + second
    elif in_fmt == "cxcywh":
        half = 0.5 * second
        first, second = first - half, first + half
    if out_fmt == "xywh":
        second = second - first
    elif out_fmt == "cxcywh":
        first, second = (first + second) / 2, second - first
    return torch.cat((first, second), -1).to(boxes.dtype)


def clip_boxes(boxes: torch.Tensor, size: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """Boxes moved into their image: x into ``[0, width]``, y into ``[0, height]``.

    Args:
        boxes: ``[..., 4]`` (x1, y1, x2, y2) in pixels; float16, bfloat16, float32 or float64.
        size: (height, width) of the image; or those of each image, for boxes ``[B, N, 4]``: a tensor ``[B, 2]``, or
            pairs.

    Returns:
        ``[..., 4]`` of the same type; a NaN stays. Differentiable: no gradient reaches a coordinate that was moved.

    Raises:
        RuntimeError: for a wrong shape, dtype or device.

    Note:
        Results agree with ``torchvision.ops.clip_boxes_to_image`` to the bit.
    """
    _check("clip_boxes", boxes)
    wide = boxes.to(torch.promote_types(boxes.dtype, torch.float32))  # autocast refuses to join halves on a CPU
    require(
        isinstance(size, torch.Tensor | list | tuple),
        lambda: f"clip_boxes: size must be (height, width), a tensor or pairs, got {type(size).__name__}",
    )
    if not isinstance(size, torch.Tensor) and any(isinstance(side, list | tuple) for side in size):
        size = _checks.image_sizes("clip_boxes", "size", size, boxes.device)
    if isinstance(size, torch.Tensor):
        batch = boxes.shape[:-2]
        require(
            boxes.dim() >= 2 and tuple(size.shape) == (*batch, 2),
            lambda: (
                f"clip_boxes: size must be (height, width) or {[*batch, 2]}, one of each image's boxes, "
                f"got {list(size.shape)} for boxes {list(boxes.shape)}"
            ),
        )
        _checks.same_device("clip_boxes", "size", size, "boxes", boxes)
        limit = size.to(wide.dtype).flip(-1).unsqueeze(-2)
        limit = torch.cat((limit, limit), -1)
        return wide.clamp(torch.zeros_like(limit), limit).to(boxes.dtype)
    require(len(size) == 2, lambda: f"clip_boxes: size must be (height, width), got {len(size)} numbers")
    for side in size:
        _checks.image_side("clip_boxes", "size", side)
    height, width = size
    x, y = wide[..., 0::2].clamp(0, width), wide[..., 1::2].clamp(0, height)
    return torch.stack((x, y), -1).flatten(-2).to(boxes.dtype)


def _check(op: str, boxes: torch.Tensor) -> None:
    require(
        isinstance(boxes, torch.Tensor) and boxes.dim() >= 1 and bool(boxes.shape[-1] == 4),
        lambda: (
            f"{op}: boxes must be [..., 4], got "
            f"{list(boxes.shape) if isinstance(boxes, torch.Tensor) else type(boxes).__name__}"
        ),
    )
    _checks.floating(op, "boxes", boxes)
