"""Targets of a mask head: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops._boxes import MAX_POOLED, output_pair

NAME, POLYGONS = "mask_targets", "polygon_mask_targets"


CocoPolygons = Sequence[Sequence[Sequence[float]]]


def polygon_tensors(
    polygons: CocoPolygons, device: torch.device | str | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(points, rings, objects)`` as :func:`polygon_mask_targets` takes them, from polygons as COCO has them: for each
    object a list of flat ``[x0, y0, x1, y1, ...]``. Made on the host, then copied."""
    points: list[torch.Tensor] = []
    rings, objects = [0], [0]
    for polygons_of_one in _listed(polygons):
        for flat in _listed(polygons_of_one):
            points.append(_points(flat))
            rings.append(rings[-1] + len(points[-1]))
        objects.append(len(rings) - 1)
    found = torch.cat([torch.empty(0, 2, dtype=torch.float64, device="cpu"), *points]).float().to(device)
    return found, torch.tensor(rings, device=found.device), torch.tensor(objects, device=found.device)


def _listed(value: object) -> Sequence[Any]:
    # A crowd of COCO has a dictionary in the place of polygons, and the rows of a bitmap would pass for them.
    require(
        isinstance(value, list | tuple),
        lambda: (
            f"{NAME}: gt_masks must be a tensor [G, H, W], or for each object a list of polygons, each flat "
            f"[x0, y0, x1, y1, ...], got {type(value).__name__}"
        ),
    )
    return value  # type: ignore[return-value]


def _points(flat: Any) -> torch.Tensor:
    """``[n, 2]``"""
    try:
        numbers = torch.as_tensor(flat, dtype=torch.float64, device="cpu")
    except (RuntimeError, TypeError, ValueError):
        numbers = torch.empty(0, 0, device="cpu")
    require(
        numbers.dim() == 1 and len(numbers) % 2 == 0,
        lambda: f"{NAME}: a polygon must be x and y in turns, in one flat list, got {flat!r:.100}",
    )
    return numbers.view(-1, 2)


def polygon_mask_targets(
    points: torch.Tensor,
    rings: torch.Tensor,
    objects: torch.Tensor,
    boxes: torch.Tensor,
    matched: torch.Tensor,
    size: int | Sequence[int],
) -> torch.Tensor:
    """:func:`mask_targets` from polygons: rasterised inside of each box, at the size of the target.

    What detectron2 trains on: its ``rasterize_polygons_within_box``, which has COCO's ``frPyObjects`` rasterise the
    polygons in the frame of the box. A pixel is 1 where its centre is inside of any ring of the object, each by the
    even-odd rule; COCO's own rounds the boundary, and is another within a pixel of it. Positions are computed in
    float64, and the result is the same to the bit on every backend. Not differentiable.

    The first three arguments are what ``structops.ops.polygon_tensors`` makes of COCO's lists.

    Args:
        points: ``[V, 2]`` (x, y) in image pixels, of all rings one after the other; any floating type.
        rings: ``[R + 1]`` where the points of each ring begin, and V; any integer type. The last point is joined to the
            first.
        objects: ``[G + 1]`` where the rings of each object begin, and R; any integer type.
        boxes: ``[K, 4]`` (x1, y1, x2, y2) in image pixels, any floating type. A side of less than 0.1 counts as 0.1.
        matched: ``[K]`` the object of each box; any integer type.
        size: of a target, (height, width) or one number for both; 1 to 32768.

    Returns:
        ``[K, height, width]`` 0 or 1, float32 (float64 where any argument is). A box with a coordinate that is not
        finite gives NaN.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, a ``size`` out of range, or (on a CPU) an index or an
            offset out of range; on a GPU, where looking would cost a host sync, such a box gives NaN, and such an
            offset is taken for the nearest in range.
    """
    rows, columns = output_pair(POLYGONS, size, "size")
    return _polygon_mask_targets(points, rings, objects, boxes, matched, rows, columns)


def mask_targets(
    gt_masks: torch.Tensor | CocoPolygons, boxes: torch.Tensor, matched: torch.Tensor, size: int | Sequence[int]
) -> torch.Tensor:
    """What a mask head is trained to say of each box: the ground truth's mask inside of it, at the head's size.

    The results of ``torchvision.models.detection.roi_heads.project_masks_on_boxes`` (He et al., "Mask R-CNN", 2017,
    section 3.1): RoI Align with one bin a pixel, ``aligned=False`` and as many samples as a bin is long. Bitmaps are
    read as they are stored, without a floating copy of them. Not differentiable.

    Args:
        gt_masks: ``[G, H, W]``, a bitmap of the image for each object; bool, uint8, float16, bfloat16, float32 or
            float64. Or a list of polygons as COCO has them, for each object a list of flat ``[x0, y0, x1, y1, ...]``:
            then the results are those of :func:`polygon_mask_targets`, which takes them as the tensors that
            ``structops.ops.polygon_tensors`` makes of them. COCO's run lengths have to be decoded first.
        boxes: ``[K, 4]`` (x1, y1, x2, y2) in image pixels, any floating type.
        matched: ``[K]`` the object of each box, an index of ``gt_masks``; any integer type.
        size: of a target, (height, width) or one number for both; 1 to 32768.

    Returns:
        ``[K, height, width]`` float32 (float64 where any argument is), shares of covered area where bitmaps hold 0 and
        1. A box with a coordinate that is not finite gives NaN.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or length, a ``size`` out of range, or (on a CPU) an index out of
            range; on a GPU, where looking would cost a host sync, such a box gives NaN.
    """
    if not isinstance(gt_masks, torch.Tensor):
        _checks.tensor(NAME, "boxes", boxes)
        return polygon_mask_targets(*polygon_tensors(gt_masks, boxes.device), boxes, matched, size)
    rows, columns = output_pair(NAME, size, "size")
    return _mask_targets(gt_masks, boxes, matched, rows, columns)


def check_target_boxes(op: str, boxes, matched, rows, columns, count) -> None:
    """Raise unless boxes are ``[K, 4]`` and matched ``[K]``, on a CPU indices of ``count`` objects."""
    require(
        boxes.dim() == 2 and boxes.shape[1] == 4,
        lambda: f"{op}: boxes must be [K, 4] (x1, y1, x2, y2), got {list(boxes.shape)}",
    )
    _checks.floating(op, "boxes", boxes)
    require(
        matched.dim() == 1 and matched.shape[0] == boxes.shape[0],
        lambda: f"{op}: matched must be [K], an index for each of the {boxes.shape[0]} boxes, got {matched.shape}",
    )
    _checks.integer(op, "matched", matched)
    _checks.same_device(op, "matched", matched, "boxes", boxes)
    require(
        0 < rows <= MAX_POOLED and 0 < columns <= MAX_POOLED,
        lambda: f"{op}: size must be 1 to {MAX_POOLED}, got ({rows}, {columns})",
    )
    if matched.device.type == "cpu" and not torch.compiler.is_compiling() and type(matched) is torch.Tensor:
        bad = (matched < 0) | (matched >= count)
        require(
            not bool(bad.any()),
            lambda: f"{op}: matched[{int(bad.nonzero()[0])}] is {matched[bad][0].item()}, but must be in [0, {count})",
        )


def _check(gt_masks, boxes, matched, rows, columns) -> None:
    require(
        gt_masks.dim() == 3,
        lambda: f"{NAME}: gt_masks must be [G, H, W] (3 dimensions), got {gt_masks.dim()} dimensions",
    )
    require(
        gt_masks.dtype in (torch.bool, torch.uint8, *_checks.FLOATING),
        lambda: f"{NAME}: gt_masks must be bool, uint8 or floating, got {gt_masks.dtype}",
    )
    _checks.same_device(NAME, "boxes", boxes, "gt_masks", gt_masks)
    check_target_boxes(NAME, boxes, matched, rows, columns, gt_masks.shape[0])


def _fake(gt_masks, boxes, matched, rows, columns):
    wide = torch.float64 in (gt_masks.dtype, boxes.dtype)
    return boxes.new_empty((boxes.shape[0], rows, columns), dtype=torch.float64 if wide else torch.float32)


_mask_targets = Op(NAME, module=NAME, check=_check, fake=_fake)


def _check_polygons(points, rings, objects, boxes, matched, rows, columns) -> None:
    op = POLYGONS
    require(
        points.dim() == 2 and points.shape[1] == 2,
        lambda: f"{op}: points must be [V, 2] (x, y), got {list(points.shape)}",
    )
    _checks.floating(op, "points", points)
    for name, offsets, count in (("rings", rings, points.shape[0]), ("objects", objects, rings.shape[0] - 1)):
        require(
            offsets.dim() == 1 and offsets.shape[0] > 0,
            lambda name=name, offsets=offsets: f"{op}: {name} must be offsets, at least one, got {list(offsets.shape)}",  # type: ignore[misc]
        )
        _checks.integer(op, name, offsets)
        _checks.same_device(op, name, offsets, "points", points)
        if offsets.device.type == "cpu" and not torch.compiler.is_compiling() and type(offsets) is torch.Tensor:
            rising = bool((offsets[1:] >= offsets[:-1]).all()) and 0 <= int(offsets[0]) <= int(offsets[-1]) <= count
            require(rising, lambda name=name, n=count: f"{op}: {name} must rise from 0 to no more than {n}")  # type: ignore[misc]
    _checks.same_device(op, "boxes", boxes, "points", points)
    check_target_boxes(op, boxes, matched, rows, columns, objects.shape[0] - 1)


def _fake_polygons(points, rings, objects, boxes, matched, rows, columns):
    wide = torch.float64 in (points.dtype, boxes.dtype)
    return boxes.new_empty((boxes.shape[0], rows, columns), dtype=torch.float64 if wide else torch.float32)


_polygon_mask_targets = Op(POLYGONS, module=NAME, check=_check_polygons, fake=_fake_polygons)
