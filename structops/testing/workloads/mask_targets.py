"""Mask R-CNN's training: the targets of an image's positive proposals, 28 x 28 each."""

from __future__ import annotations

import functools
import importlib
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


WORKLOADS = (
    _workload(32, 4, torch.uint8, quick=True),
    _workload(128, 20, torch.uint8),
    _workload(128, 20, torch.float32),
)
