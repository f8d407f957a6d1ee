"""Targets of a mask head: RoI Align's kernel, which reads bitmaps as they are stored."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._roi_axes import roi_axes
from structops.triton_kernels.roi_align import forward_launch, roi_align_forward_kernel


def _launches(
    gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, list[Launch]]:
    wide = torch.float64 in (gt_masks.dtype, boxes.dtype)
    compute = torch.float64 if wide else torch.float32
    out = torch.empty((boxes.shape[0], 1, *size), dtype=compute, device=boxes.device)
    if out.numel() == 0:
        return out[:, 0], []
    masks = (gt_masks.view(torch.uint8) if gt_masks.dtype == torch.bool else gt_masks)[:, None].contiguous()
    rois = torch.cat([matched[:, None].double(), boxes.double()], 1)  # a float would not hold every index
    map_shape = (masks.shape[0], masks.shape[2], masks.shape[3])
    axes = roi_axes(rois, 1.0, size, 0, False, map_shape, compute)
    source = {"features": masks, **{f"stride_{d}": n for d, n in zip("nchw", masks.stride(), strict=True)}}
    return out[:, 0], [axes.launch, forward_launch(roi_align_forward_kernel, source, masks, axes, out)]


def mask_targets(
    gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, rows: int, columns: int
) -> torch.Tensor:
    """Targets ``[K, rows, columns]`` of ``gt_masks [G, H, W]``, those ``matched [K]`` inside of ``boxes [K, 4]``."""
    out, launches = _launches(gt_masks, boxes, matched, (rows, columns))
    run(boxes.device, launches)
    return out


@triton.jit(do_not_specialize=["point_count", "ring_count", "object_count", "rows", "columns"])
def polygon_mask_targets_kernel(
    points,  # [V, 2] (x, y) float64
    rings,  # [R + 1] int64: where the points of each begin
    objects,  # [G + 1] int64: where the rings of each begin
    grids,  # [K, 4] float64: left, top, width and height of a pixel of the target
    matched,  # [K] int64
    targets,  # [K, rows, columns], written
    point_count,
    ring_count,
    object_count,
    rows,
    columns,
    BLOCK: tl.constexpr,
):
    k = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    grid = grids + k * 4
    left, top, width, height = tl.load(grid), tl.load(grid + 1), tl.load(grid + 2), tl.load(grid + 3)
    index = tl.load(matched + k)
    finite = ((left - left) + (top - top) + (width - width) + (height - height)) == 0.0
    valid = finite & (index >= 0) & (index < object_count)
    g = tl.where(valid, index, 0)
    half = tl.full([BLOCK], 0.5, tl.float64)
    x = left + ((i % columns).to(tl.float64) + half) * width
    y = top + ((i // columns).to(tl.float64) + half) * height
    inside = tl.zeros([BLOCK], tl.int32)
    # Whatever offsets say, points are read only where there are any.
    first_ring = tl.minimum(tl.maximum(tl.load(objects + g, mask=valid, other=0), 0), ring_count).to(tl.int32)
    last_ring = tl.minimum(tl.maximum(tl.load(objects + g + 1, mask=valid, other=0), 0), ring_count).to(tl.int32)
    for r in range(first_ring, last_ring):
        first = tl.minimum(tl.maximum(tl.load(rings + r), 0), point_count).to(tl.int32)
        last = tl.minimum(tl.maximum(tl.load(rings + r + 1), 0), point_count).to(tl.int32)
        odd = tl.zeros([BLOCK], tl.int32)
        for v in range(first, last):
            at = k * 0 + v  # of 64 bits
            a = points + at * 2
            b = points + tl.where(at + 1 < last, at + 1, first) * 2
            ax, ay, bx, by = tl.load(a), tl.load(a + 1), tl.load(b), tl.load(b + 1)
            crosses = (ay <= y) != (by <= y)
            below = tl.where(by == ay, by - ay + 1.0, by - ay)  # no edge that crosses is level
            crossing = ax + (y - ay) * (bx - ax) / below
            odd ^= (crosses & (x < crossing)).to(tl.int32)
        inside |= odd
    value = tl.where(valid, inside.to(tl.float32), float("nan"))
    tl.store(targets + k * rows * columns + i, value.to(targets.dtype.element_ty), mask=i < rows * columns)


def _polygon_launch(
    points: torch.Tensor,
    rings: torch.Tensor,
    objects: torch.Tensor,
    boxes: torch.Tensor,
    matched: torch.Tensor,
    size: tuple[int, int],
) -> tuple[torch.Tensor, Launch]:
    rows, columns = size
    wide = torch.float64 in (points.dtype, boxes.dtype)
    targets = boxes.new_empty((boxes.shape[0], rows, columns), dtype=torch.float64 if wide else torch.float32)
    corners = boxes.double()
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides.masked_fill((sides < 0.1) & sides.isfinite(), 0.1)  # of minus infinity, clamp would make a side too
    block = min(256, triton.next_power_of_2(rows * columns))
    arguments = {
        "points": points.double().contiguous(),
        "rings": rings.long().contiguous(),
        "objects": objects.long().contiguous(),
        "grids": torch.cat([corners[:, :2], sides[:, :1] / columns, sides[:, 1:] / rows], 1),
        "matched": matched.long().contiguous(),
        "targets": targets,
        "point_count": points.shape[0],
        "ring_count": rings.shape[0] - 1,
        "object_count": objects.shape[0] - 1,
        "rows": rows,
        "columns": columns,
        "BLOCK": block,
    }
    grid = (boxes.shape[0], triton.cdiv(rows * columns, block))
    return targets, Launch(polygon_mask_targets_kernel, grid, arguments, {"num_warps": 4, "enable_fp_fusion": False})


def polygon_mask_targets(
    points: torch.Tensor,
    rings: torch.Tensor,
    objects: torch.Tensor,
    boxes: torch.Tensor,
    matched: torch.Tensor,
    rows: int,
    columns: int,
) -> torch.Tensor:
    """Targets ``[K, rows, columns]`` of polygons, those of the objects ``matched [K]`` inside of ``boxes [K, 4]``."""
    targets, launch = _polygon_launch(points, rings, objects, boxes, matched, (rows, columns))
    run(boxes.device, [launch])
    return targets


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    matched = torch.empty(128, dtype=torch.int64, device="meta")
    for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        masks = torch.empty((20, 800, 1333), dtype=dtype, device="meta")
        boxes = torch.empty((128, 4), dtype=torch.float64 if dtype == torch.float64 else torch.float32, device="meta")
        for launch in _launches(masks, boxes, matched, (28, 28))[1]:
            yield f"{str(dtype)[6:]}", launch
    offsets = torch.empty(21, dtype=torch.int64, device="meta")
    for dtype in (torch.float32, torch.float64):
        points, boxes = (torch.empty((n, d), dtype=dtype, device="meta") for n, d in ((900, 2), (128, 4)))
        # One name has the type that tests take through every target.
        name = f"polygons-{str(dtype)[6:]}{'-as-bfloat16' if dtype == torch.float32 else ''}"
        yield name, _polygon_launch(points, offsets, offsets, boxes, matched, (28, 28))[1]
