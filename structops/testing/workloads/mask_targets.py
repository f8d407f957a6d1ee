"""Mask R-CNN's training: the targets of an image's positive proposals, 28 x 28 each."""

from __future__ import annotations

import functools
import importlib
import math
from importlib.util import find_spec
from typing import Any

import torch

from structops import ops
from structops.testing.cases.mask_targets import bitmaps
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.nms import HEIGHT, WIDTH, spread_boxes

SIDE = 28


def make(count: int, objects: int, dtype: torch.dtype, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    masks = bitmaps(draw, objects, HEIGHT, WIDTH).to(device, dtype)
    boxes = spread_boxes(count, draw).to(device)
    matched = torch.randint(objects, (count,), generator=draw).to(device)
    run: Any = functools.partial(ops.mask_targets, masks, boxes, matched, SIDE)
    peer: Any = None
    if torchvision_ops() is not None:
        heads = importlib.import_module("torchvision.models.detection.roi_heads")
        peer = functools.partial(heads.project_masks_on_boxes, masks, boxes, matched, SIDE)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        if peer_result is not None:  # whose coordinates are float32: 6e-5 pixels here, as much of a bin's edge
            torch.testing.assert_close(result, peer_result, rtol=0, atol=1e-3)

    def cost(result: torch.Tensor) -> Cost:
        inside = boxes.clamp(min=0)
        area = ((inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])).sum().item()
        # Pixels of the boxes read once, each weighted and added once.
        return Cost(int(area) * masks.element_size() + result.numel() * 4, 2 * int(area))

    return Trial(run, peer, "torchvision", check, cost)


def _workload(count: int, objects: int, dtype: torch.dtype, quick: bool = False) -> Workload:
    name = f"{count}-of-{objects}-{str(dtype)[6:]}"
    title = f"{count} boxes, {objects} bitmaps of {HEIGHT} x {WIDTH}, {str(dtype)[6:]}"
    draw = functools.partial(make, count, objects, dtype, f"mask_targets-{name}")
    return Workload("mask_targets", name, title, "forward", dtype, draw, quick=quick)


def _coco(outlines: tuple[torch.Tensor, ...], boxes: torch.Tensor, matched: torch.Tensor) -> torch.Tensor:
    """detectron2's way: the matched object's polygons in the frame of each box, rasterised by pycocotools."""
    coco: Any = importlib.import_module("pycocotools.mask")
    points, rings, objects = (t.cpu().numpy() for t in outlines)
    targets = []
    for (x1, y1, x2, y2), index in zip(boxes.tolist(), matched.tolist(), strict=True):
        scale = SIDE / max(x2 - x1, 0.1), SIDE / max(y2 - y1, 0.1)
        own = range(objects[index], objects[index + 1])
        polygons = [((points[rings[r] : rings[r + 1]] - (x1, y1)) * scale).ravel() for r in own]
        targets.append(torch.from_numpy(coco.decode(coco.merge(coco.frPyObjects(polygons, SIDE, SIDE)))))
    return torch.stack(targets)


def blobs(objects: int, points: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(points, rings, objects)``: a smooth outline each, of as many points."""
    angle = torch.arange(points) * (2 * math.pi / points)
    turn, size, x, y = torch.rand(4, objects, 1, generator=draw).unbind()
    radius = (30 + 200 * size) * (1 + 0.3 * torch.sin(3 * angle + 2 * math.pi * turn))
    outline = torch.stack([x * WIDTH + radius * angle.cos(), y * HEIGHT + radius * angle.sin()], -1)
    return outline.view(-1, 2), torch.arange(objects + 1) * points, torch.arange(objects + 1)


def make_polygons(count: int, objects: int, points: int, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    points_, rings, objects_ = (t.to(device) for t in blobs(objects, points, draw))
    shapes = points_, rings, objects_
    boxes = spread_boxes(count, draw).to(device)
    matched = torch.randint(objects, (count,), generator=draw).to(device)
    run: Any = functools.partial(ops.polygon_mask_targets, *shapes, boxes, matched, SIDE)
    peer = functools.partial(_coco, shapes, boxes, matched) if find_spec("pycocotools") else None

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        if peer_result is not None:  # which rounds the boundary: it is another within a pixel of it
            near = torch.nn.functional.max_pool2d(result[:, None], 3, 1, 1)[:, 0]
            far = -torch.nn.functional.max_pool2d(-result[:, None], 3, 1, 1)[:, 0]
            assert ((peer_result.to(result) <= near) & (peer_result.to(result) >= far)).all()

    # Points and boxes read once, targets written once; that each row of a target meets each edge.
    moved = count * (16 + 8 + 4 * SIDE * SIDE) + shapes[0].numel() * 4
    return Trial(run, peer, "pycocotools, box by box", check, lambda _: Cost(moved, 2 * count * points * SIDE))


def _polygons(count: int, objects: int, points: int, quick: bool = False) -> Workload:
    name = f"{count}-of-{objects}-polygons"
    title = f"{count} boxes, {objects} polygons of {points} points"
    draw = functools.partial(make_polygons, count, objects, points, f"mask_targets-{name}")
    return Workload("polygon_mask_targets", name, title, "forward", torch.float32, draw, quick=quick)


WORKLOADS = (
    _polygons(32, 4, 60, quick=True),
    _polygons(128, 20, 120),
    _workload(32, 4, torch.uint8, quick=True),
    _workload(128, 20, torch.uint8),
    _workload(128, 20, torch.float32),
)
