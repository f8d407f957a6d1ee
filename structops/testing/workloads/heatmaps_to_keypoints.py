"""Keypoint R-CNN's heatmaps, 17 of 56 x 56 for each person: a peak each, as a trained network has it."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from structops import ops
from structops.testing.cases.heatmaps_to_keypoints import peaked
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops

POINTS, SIDE = 17, 56
HEIGHT, WIDTH = 800, 1333


def people(count: int, draw: torch.Generator) -> torch.Tensor:
    """``[K, 4]`` boxes of standing people, 60 to 600 pixels high."""
    height = torch.empty(count).uniform_(60, 600, generator=draw)
    size = torch.stack([height * torch.empty(count).uniform_(0.3, 0.6, generator=draw), height], 1)
    corner = torch.rand(count, 2, generator=draw) * (torch.tensor([WIDTH, HEIGHT]) - size)
    return torch.cat([corner, corner + size], 1)


def make(count: int, noise: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    shape = (count, POINTS, SIDE, SIDE)
    maps = (torch.randn(shape, generator=draw) if noise else peaked(draw, *shape).float()).to(device)
    rois = people(count, draw).to(device)
    run: Any = functools.partial(ops.heatmaps_to_keypoints, maps, rois)
    peer: Any = None
    if torchvision_ops() is not None:
        heads = importlib.import_module("torchvision.models.detection.roi_heads")
        peer = functools.partial(heads.heatmaps_to_keypoints, maps, rois)

    def check(result: tuple[torch.Tensor, torch.Tensor], peer_result: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        for mine, theirs in zip(result, peer_result or (), strict=peer_result is not None):
            if device.type == "cpu":
                assert torch.equal(mine, theirs), "heatmaps_to_keypoints differs from torchvision"
            else:  # whose GPU kernel rounds its weights in another way
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)

    # Maps read and results written once. The fewest operations: that each pixel of a map is looked at.
    moved = maps.numel() * 4 + rois.numel() * 4 + count * POINTS * 4 * 4
    return Trial(run, peer, "torchvision", check, lambda _: Cost(moved, maps.numel()))


def _workload(count: int, noise: bool = False, quick: bool = False) -> Workload:
    name = f"{count}-{'noise' if noise else 'peaks'}"
    title = f"{count} people x {POINTS}{', maps of noise' if noise else ''}"
    draw = functools.partial(make, count, noise, f"heatmaps_to_keypoints-{name}")
    return Workload("heatmaps_to_keypoints", name, title, "forward", torch.float32, draw, quick=quick)


WORKLOADS = (_workload(5, quick=True), _workload(50), _workload(50, noise=True))
