"""Anchors, default boxes and grid points of all levels of a detector at once: public functions, fakes and checks.

None is differentiable. :func:`cell_anchors` and :func:`wh_pairs` make the few numbers that they start from.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require

MAX_LEVELS = 8
MAX_SIDE, MAX_STRIDE = 2**24, 2**31
Pair = int | Sequence[int]


def generate_anchors(
    cell_anchors: Sequence[torch.Tensor], grid_sizes: Sequence[Sequence[int]], strides: Sequence[Pair]
) -> torch.Tensor:
    """The anchors of all levels of a feature pyramid (Ren et al., "Faster R-CNN", 2015): RPN, RetinaNet.

    Args:
        cell_anchors: one tensor ``[A, 4]`` (x1, y1, x2, y2) about the origin per level, in image pixels, as
            :func:`structops.ops.anchors.cell_anchors` makes them; 1 to 8 levels, all of one of float16, bfloat16,
            float32, float64.
        grid_sizes: ``(height, width)`` of each level's map; below 2^24.
        strides: image pixels per map pixel of each level: a number, or ``(y, x)``; below 2^31.

    Returns:
        ``[sum of H * W * A, 4]`` (x1, y1, x2, y2) in image pixels, level after level, a level in the order (row,
        column, cell anchor), of the type of the cell anchors. To the bit what torchvision's ``AnchorGenerator`` gives:
        the offset of a pixel, an integer, is rounded to that type and added.

    Raises:
        RuntimeError: for a wrong rank, dtype, device, number of levels or size.
    """
    op = "generate_anchors"
    _require_tensors(op, "cell_anchors", cell_anchors)
    sizes = _flat(op, "grid_sizes", grid_sizes, single=False)
    return _generate_anchors(list(cell_anchors), sizes, _flat(op, "strides", strides))


def default_boxes(
    wh_pairs: Sequence[torch.Tensor],
    grid_sizes: Sequence[Sequence[int]],
    image_size: Sequence[int],
    *,
    steps: Sequence[float] | None = None,
    clip: bool = True,
) -> torch.Tensor:
    """The default boxes of all levels (Liu et al., "SSD: Single Shot MultiBox Detector", 2016).

    Args:
        wh_pairs: one tensor ``[A, 2]`` per level: widths and heights as shares of the image's, as
            :func:`structops.ops.anchors.wh_pairs` makes them; 1 to 8 levels, all of one of float16, bfloat16, float32,
            float64.
        grid_sizes: ``(height, width)`` of each level's map; below 2^24.
        image_size: ``(height, width)`` of the image, in pixels.
        steps: image pixels per map pixel of each level, where they are not the image's size over the map's.
        clip: limit widths and heights to the image's (boxes may still reach beyond its edges).

    Returns:
        ``[sum of H * W * A, 4]`` (x1, y1, x2, y2) in image pixels, level after level, a level in the order (row,
        column, pair); float32, or float64 for float64 pairs. To the bit what torchvision's ``DefaultBoxGenerator``
        gives: centres are divided in float32, whatever the type.

    Raises:
        RuntimeError: for a wrong rank, dtype, device, number of levels or size.
    """
    op = "default_boxes"
    _require_tensors(op, "wh_pairs", wh_pairs)
    sizes = _flat(op, "grid_sizes", grid_sizes, single=False)
    image = _flat(op, "image_size", [image_size], single=False)
    require(
        steps is None or isinstance(steps, list | tuple),
        lambda: f"{op}: steps must be a number for each level, got {steps}",
    )
    return _default_boxes(list(wh_pairs), sizes, image, [_checks.number(op, "steps", s) for s in steps or ()], clip)


def yolo_grid(
    grid_sizes: Sequence[Sequence[int]],
    strides: Sequence[Pair],
    like: torch.Tensor,
    *,
    offset: float = 0.5,
    with_stride: bool = False,
) -> torch.Tensor:
    """The grid points of all levels: what anchor-free heads (YOLOX, YOLOv6, YOLOv8, FCOS) measure their boxes from.

    Args:
        grid_sizes: ``(height, width)`` of each level's map; 1 to 8 levels, below 2^24.
        strides: image pixels per map pixel of each level: a number, or ``(y, x)``; below 2^31.
        like: a tensor, such as a feature map, whose dtype (float16, bfloat16, float32 or float64) and device the result
            has; its values are not read.
        offset: of a point in its pixel, in map pixels: 0.5 is the centre, 0 the corner.
        with_stride: add the strides of each point's level.

    Returns:
        ``[sum of H * W, 2]`` (x, y) in image pixels: ``(pixel + offset) * stride``; or ``[sum of H * W, 4]``
        (x, y, stride x, stride y). Level after level, a level along its rows. Over the stride, they are what
        Ultralytics calls anchor points. Computed in float32 at least and rounded once.

    Raises:
        RuntimeError: for a wrong dtype, number of levels or size, or an offset that is not finite.
    """
    op = "yolo_grid"
    require(isinstance(like, torch.Tensor), lambda: f"{op}: like must be a tensor, got {type(like).__name__}")
    sizes = _flat(op, "grid_sizes", grid_sizes, single=False)
    return _yolo_grid(
        like, sizes, _flat(op, "strides", strides), _checks.number(op, "offset", offset), bool(with_stride)
    )


def cell_anchors(
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Anchors about the origin for one level, as torchvision's ``AnchorGenerator`` makes them.

    Args:
        sizes: square roots of areas, in image pixels.
        aspect_ratios: heights over widths.

    Returns:
        ``[len(aspect_ratios) * len(sizes), 4]`` (x1, y1, x2, y2), in whole pixels, the sizes of a ratio together.
    """
    scales = torch.as_tensor(sizes, dtype=torch.float32)
    h_ratios = torch.sqrt(torch.as_tensor(aspect_ratios, dtype=torch.float32))
    ws = ((1 / h_ratios)[:, None] * scales).view(-1)
    hs = (h_ratios[:, None] * scales).view(-1)
    return (torch.stack([-ws, -hs, ws, hs], 1) / 2).round().to(device, dtype)


def wh_pairs(
    scale: float,
    next_scale: float,
    aspect_ratios: Sequence[float],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Sizes of default boxes for one level, as torchvision's ``DefaultBoxGenerator`` makes them.

    Args:
        scale: the level's, as a share of the image.
        next_scale: the next level's; between the two lies that of a second square.
        aspect_ratios: widths over heights, each of which also stands for its reciprocal.

    Returns:
        ``[2 + 2 * len(aspect_ratios), 2]`` (width, height).
    """
    between = math.sqrt(scale * next_scale)
    pairs = [[scale, scale], [between, between]]
    for ratio in aspect_ratios:
        root = math.sqrt(ratio)
        pairs += [[scale * root, scale / root], [scale / root, scale * root]]
    return torch.tensor(pairs, dtype=torch.float32).to(device, dtype)


def _require_tensors(op: str, name: str, tensors) -> None:
    require(
        isinstance(tensors, list | tuple) and all(isinstance(t, torch.Tensor) for t in tensors),
        lambda: f"{op}: {name} must be a list of tensors, one per level",
    )
    require(len(tensors) > 0, lambda: f"{op}: 1 to {MAX_LEVELS} levels are supported, got none")


def _flat(op: str, name: str, values, single: bool = True) -> list[int]:
    """Pairs (y, x) one after the other; with ``single`` a number stands for two."""
    whole = (int, torch.SymInt)

    def message() -> str:
        return f"{op}: {name} must hold pairs of ints{' or ints' if single else ''}, got {values}"

    require(isinstance(values, list | tuple | torch.Size), message)
    flat: list[int] = []
    for value in values:
        if single and isinstance(value, whole):
            value = (value, value)
        require(isinstance(value, list | tuple) and len(value) == 2, message)
        require(all(isinstance(v, whole) for v in value), message)
        flat += value
    return flat


def _check_grids(op: str, levels: int, grid_sizes) -> None:
    require(1 <= levels <= MAX_LEVELS, lambda: f"{op}: 1 to {MAX_LEVELS} levels are supported, got {levels}")
    require(
        len(grid_sizes) == 2 * levels,
        lambda: (
            f"{op}: grid_sizes must have one (height, width) a level, got {len(grid_sizes) // 2} for {levels} levels"
        ),
    )
    for side in grid_sizes:
        message = functools.partial("{}: grid_sizes must be 0 or more and below 2^24, got {}".format, op, side)
        require(side >= 0, message)
        require(side < MAX_SIDE, message)


def _check_strides(op: str, levels: int, strides) -> None:
    require(
        len(strides) == 2 * levels,
        lambda: f"{op}: strides must have one (y, x) a level, got {len(strides) // 2} for {levels} levels",
    )
    for stride in strides:
        message = functools.partial("{}: strides must be 0 or more and below 2^31, got {}".format, op, stride)
        require(stride >= 0, message)
        require(stride < MAX_STRIDE, message)


def _check_cells(op: str, name: str, cells, columns: int) -> None:
    for level, c in enumerate(cells):
        require(
            c.dim() == 2 and c.shape[1] == columns,
            lambda level=level, c=c: f"{op}: {name}[{level}] must be [A, {columns}], got {list(c.shape)}",  # type: ignore[misc]
        )
        _checks.floating(op, f"{name}[{level}]", c)
        require(c.dtype == cells[0].dtype, lambda: f"{op}: {name} must be of one type")
        require(c.device == cells[0].device, lambda: f"{op}: {name} must be on one device")


def _rows(grid_sizes, cells: Sequence[torch.Tensor] | None = None):
    areas = [h * w for h, w in zip(grid_sizes[::2], grid_sizes[1::2], strict=True)]
    return sum(area * (cells[level].shape[0] if cells else 1) for level, area in enumerate(areas))


def _check_generate_anchors(cell_anchors, grid_sizes, strides) -> None:
    op = "generate_anchors"
    _check_grids(op, len(cell_anchors), grid_sizes)
    _check_strides(op, len(cell_anchors), strides)
    _check_cells(op, "cell_anchors", cell_anchors, 4)


def _fake_generate_anchors(cell_anchors, grid_sizes, strides):
    return cell_anchors[0].new_empty((_rows(grid_sizes, cell_anchors), 4))


def _check_default_boxes(wh_pairs, grid_sizes, image_size, steps, clip) -> None:
    op = "default_boxes"
    _check_grids(op, len(wh_pairs), grid_sizes)
    _check_cells(op, "wh_pairs", wh_pairs, 2)
    for side in image_size:
        require(side >= 0, lambda: f"{op}: image_size must be (height, width), 0 or more, got {list(image_size)}")
    require(
        len(steps) in (0, len(wh_pairs)),
        lambda: f"{op}: steps must have one number a level, got {len(steps)} for {len(wh_pairs)} levels",
    )
    for step in steps:
        require(
            0 < step < math.inf,
            lambda step=step: f"{op}: steps must be positive and finite, got {step}",  # type: ignore[misc]
        )


def _fake_default_boxes(wh_pairs, grid_sizes, image_size, steps, clip):
    dtype = torch.promote_types(wh_pairs[0].dtype, torch.float32)
    return wh_pairs[0].new_empty((_rows(grid_sizes, wh_pairs), 4), dtype=dtype)


def _check_yolo_grid(like, grid_sizes, strides, offset, with_stride) -> None:
    op = "yolo_grid"
    _checks.floating(op, "like", like)
    levels = len(grid_sizes) // 2
    _check_grids(op, levels, grid_sizes)
    _check_strides(op, levels, strides)
    require(abs(offset) < MAX_SIDE, lambda: f"{op}: offset must be finite and below 2^24, got {offset}")


def _fake_yolo_grid(like, grid_sizes, strides, offset, with_stride):
    return like.new_empty((_rows(grid_sizes), 4 if with_stride else 2))


_generate_anchors = Op("generate_anchors", module="anchors", check=_check_generate_anchors, fake=_fake_generate_anchors)
_default_boxes = Op("default_boxes", module="anchors", check=_check_default_boxes, fake=_fake_default_boxes)
_yolo_grid = Op("yolo_grid", module="anchors", check=_check_yolo_grid, fake=_fake_yolo_grid)
