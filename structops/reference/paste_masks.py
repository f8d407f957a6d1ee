"""Masks of detections pasted into their image, by their definition."""

from __future__ import annotations

import torch

from structops.reference._fma import fma

_LIMIT = 2.0**62


def _pixels(low: torch.Tensor, high: torch.Tensor, scale: float) -> tuple[int, int] | None:
    """First and last pixel of a box along one axis, grown around its centre; ``None`` where there is no such number."""
    half, centre = (high - low) * 0.5 * scale, (high + low) * 0.5
    ends = centre - half, centre + half
    if not all(abs(float(end)) < _LIMIT for end in ends):
        return None
    return int(ends[0]), int(ends[1])


def _taps(pixels: torch.Tensor, size: int, length: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Where ``length`` pixels lie between ``size`` numbers: two indices and two weights of each."""
    if size == length:
        return pixels, pixels, torch.ones_like(pixels, dtype=dtype), torch.zeros_like(pixels, dtype=dtype)

    def number(value: float | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(value, device=pixels.device).to(dtype)

    at = fma(number(size) / number(length), number(pixels) + 0.5, number(-0.5)).clamp(min=0)
    low = at.float().long().clamp(max=size - 1)  # torch's own floor is a float32's, of float64 too
    weight = (at - low).clamp(0, 1)
    return low, (low + 1).clamp(max=size - 1), 1 - weight, weight


def _stretched(mask: torch.Tensor, height: int, width: int, ys: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
    """Pixels (ys, xs) of ``mask`` resized to height x width, bilinear, corners not aligned."""
    top, bottom, top_weight, bottom_weight = (t[:, None] for t in _taps(ys, mask.shape[0], height, mask.dtype))
    left, right, left_weight, right_weight = _taps(xs, mask.shape[1], width, mask.dtype)
    a, b, c, d = mask[top, left], mask[top, right], mask[bottom, left], mask[bottom, right]
    # As torch's two kernels for one channel round, the second of them for small maps.
    if height + width > 128:
        first, second = fma(a, left_weight, b * right_weight), fma(c, left_weight, d * right_weight)
        return fma(first, top_weight, second * bottom_weight)
    total = fma(top_weight * left_weight, a, (top_weight * right_weight) * b)
    total = fma(bottom_weight * left_weight, c, total)
    return fma(bottom_weight * right_weight, d, total)


def paste_masks(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    height: int,
    width: int,
    threshold: float | None,
    packed: bool,
    padding: int,
) -> torch.Tensor:
    """Of ``masks [K, h, w]`` and ``boxes [K, 4]``: probabilities ``[K, 1, height, width]``, or whether they exceed the
    threshold, ``[K, height, width]`` bool or 8 to a byte."""
    wide = masks.to(torch.promote_types(masks.dtype, torch.float32))
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    image = wide.new_zeros(len(masks), height, width)
    scale = (masks.shape[2] + 2 * padding) / masks.shape[2]
    for k, mask in enumerate(torch.nn.functional.pad(wide, (padding,) * 4)):
        x, y = (_pixels(boxes[k, axis], boxes[k, axis + 2], scale) for axis in (0, 1))
        if x is None or y is None:
            continue
        inside = [
            torch.arange(max(first, 0), max(min(last + 1, size), max(first, 0)), device=masks.device)
            for (first, last), size in ((y, height), (x, width))
        ]
        if not all(map(len, inside)):
            continue
        rows, columns = (max(last - first + 1, 1) for first, last in (y, x))
        ys, xs = inside
        image[k, ys[:, None], xs] = _stretched(mask, rows, columns, ys - y[0], xs - x[0])
    if threshold is None:
        return image[:, None]
    above = image > threshold
    return pack_bits(above) if packed else above


def pack_bits(flags: torch.Tensor) -> torch.Tensor:
    """uint8 ``[..., ceil(W / 8)]`` of bool ``[..., W]``: flag 8 i + j is bit j of byte i."""
    padded = torch.nn.functional.pad(flags, (0, -flags.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (padded.long() << torch.arange(8, device=flags.device)).sum(-1).to(torch.uint8)
