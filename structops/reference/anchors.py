"""Anchors, default boxes and grid points by their definitions, level by level, in torch's own operations.

Sizes and strides come flat, as the ops take them: ``[height, width, height, width, ...]``, ``[stride y, stride x,
...]``. Order and rounding of the operations are torchvision's, so the results are its own to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch


def _pairs(flat: list[int]) -> Iterator[tuple[int, int]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _pixels(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column ``[height * width]`` of every pixel, int64, along the rows."""
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    return y[:, None].expand(height, width).reshape(-1), x.expand(height, width).reshape(-1)


def generate_anchors(cell_anchors: list[torch.Tensor], grid_sizes: list[int], strides: list[int]) -> torch.Tensor:
    """Cell anchors ``[A, 4]`` of each level about each of its pixels: ``[sum of H * W * A, 4]``.

    The offset of a pixel is an integer, rounded to the type of the anchors before it is added.
    """
    levels = []
    for cells, (height, width), (stride_y, stride_x) in zip(
        cell_anchors, _pairs(grid_sizes), _pairs(strides), strict=True
    ):
        y, x = _pixels(height, width, cells.device)
        offsets = torch.stack([x * stride_x, y * stride_y], 1).to(cells.dtype).repeat(1, 2)
        levels.append((offsets[:, None] + cells).reshape(-1, 4))
    return torch.cat(levels)


def default_boxes(
    wh_pairs: list[torch.Tensor], grid_sizes: list[int], image_size: list[int], steps: list[float], clip: bool
) -> torch.Tensor:
    """Boxes of the sizes ``[A, 2]`` (width, height, as shares of the image) of each level about its pixels' centres:
    ``[sum of H * W * A, 4]`` in image pixels.

    A centre lies at ``(pixel + 0.5) / divisor`` of the image, divided in float32 whatever the type; the divisor is the
    grid's side, or, with ``steps``, the image's side over the level's step.
    """
    levels = []
    for level, (pairs, grid) in enumerate(zip(wh_pairs, _pairs(grid_sizes), strict=True)):
        divisors = [side / steps[level] for side in image_size] if steps else grid
        # divided by a tensor: on a GPU torch multiplies by the reciprocal of a number
        by_y, by_x = (torch.full((), d, dtype=torch.float64, device=pairs.device).float() for d in divisors)
        y, x = _pixels(*grid, pairs.device)
        sizes = pairs.to(torch.promote_types(pairs.dtype, torch.float32))
        sizes = sizes.clamp(0, 1) if clip else sizes
        centres = torch.stack([(x.float() + 0.5) / by_x, (y.float() + 0.5) / by_y], 1).to(sizes.dtype)
        half, middle = 0.5 * sizes, centres[:, None]
        image = torch.tensor([image_size[1], image_size[0]], device=pairs.device)
        levels.append(torch.cat([(middle - half) * image, (middle + half) * image], 2).reshape(-1, 4))
    return torch.cat(levels)


def yolo_grid(
    like: torch.Tensor, grid_sizes: list[int], strides: list[int], offset: float, with_stride: bool
) -> torch.Tensor:
    """``(pixel + offset) * stride`` of each pixel of each level: ``[sum of H * W, 2]`` (x, y), or ``[..., 4]`` with the
    strides (x, y) of its level. At least float32 inside, then of the type of ``like``.
    """
    compute = torch.promote_types(like.dtype, torch.float32)
    levels = []
    for (height, width), (stride_y, stride_x) in zip(_pairs(grid_sizes), _pairs(strides), strict=True):
        y, x = (v.to(compute) for v in _pixels(height, width, like.device))
        columns = [(x + offset) * stride_x, (y + offset) * stride_y]
        if with_stride:
            columns += [torch.full_like(x, stride_x), torch.full_like(y, stride_y)]
        levels.append(torch.stack(columns, 1))
    return torch.cat(levels).to(like.dtype)
