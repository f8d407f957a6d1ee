"""Box formats and clipping to an image, coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def box_convert(boxes: torch.Tensor, in_fmt: str, out_fmt: str) -> torch.Tensor:
    """``boxes [..., 4]`` in another format, by way of the corners; of the same type, halves rounded once."""
    a, b, c, d = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).unbind(-1)
    if in_fmt != out_fmt:
        if in_fmt == "xywh":
            c, d = a + c, b + d
        elif in_fmt == "cxcywh":
            a, b, c, d = a - 0.5 * c, b - 0.5 * d, a + 0.5 * c, b + 0.5 * d
        if out_fmt == "xywh":
            c, d = c - a, d - b
        elif out_fmt == "cxcywh":
            a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return torch.stack((a, b, c, d), -1).to(boxes.dtype)


def clip_boxes(boxes: torch.Tensor, size: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """``boxes [..., 4]`` (x1, y1, x2, y2) moved into images of ``size`` (height, width), or ``[B, 2]`` of them."""
    if isinstance(size, torch.Tensor):
        height, width = size.to(boxes.dtype).unsqueeze(-2).unbind(-1)
    else:
        height, width = (boxes.new_tensor(float(s)) for s in size)
    x1, y1, x2, y2 = boxes.clamp(min=0).unbind(-1)
    limits = (x1, width), (y1, height), (x2, width), (y2, height)
    return torch.stack([torch.where(v > limit, limit, v) for v, limit in limits], -1)
