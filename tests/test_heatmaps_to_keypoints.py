"""Facts of keypoint decoding alone; what every op promises is in test_ops.py."""

import time

import pytest
import torch
from torchvision.models.detection import roi_heads

from structops import ops
from structops.testing.cases.heatmaps_to_keypoints import peaked
from structops.testing.workloads.heatmaps_to_keypoints import people


def drawn(g, kind, count=6, side=56):
    maps = 3 * torch.randn(count, 5, side, side, generator=g)
    if kind == "whole":  # ties of pixels, which rounding decides
        maps = maps.round()
    elif kind == "constant":
        maps = torch.randn(count, 5, 1, 1, generator=g).expand(maps.shape)
    elif kind == "peaks":
        maps = peaked(g, count, 5, side, side).float()
    elif kind == "not-finite":
        maps[0, 0, 1, 2], maps[1], maps[2, 1, 2, 0], maps[3, 2, 0, 0] = torch.nan, torch.nan, torch.inf, -torch.inf
    return maps


@pytest.mark.parametrize("kind", ["noise", "whole", "constant", "peaks", "not-finite"])
def test_torchvisions_to_the_bit(kind, g):
    for side in (56, 14, 3):
        maps, rois = drawn(g, kind, side=side), people(6, g)
        rois[-1, 2:] = rois[-1, :2] + torch.tensor([8.0, 30.0])  # smaller than its map, or no larger
        for mine, theirs in zip(
            ops.heatmaps_to_keypoints(maps, rois), roi_heads.heatmaps_to_keypoints(maps, rois), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_every_size_to_the_bit(g):
    sides = torch.arange(1, 200, dtype=torch.float32)
    maps = (9 * torch.randn(len(sides), 2, 9, 13, generator=g)).round()
    rois = torch.stack([sides, sides / 2, sides + sides, sides / 2 + sides.flip(0)], 1)
    mine, theirs = ops.heatmaps_to_keypoints(maps, rois), roi_heads.heatmaps_to_keypoints(maps, rois)
    assert torch.equal(mine[0], theirs[0])
    assert torch.equal(mine[1], theirs[1])


def test_types_that_differ(g):
    maps, rois = torch.randn(3, 2, 8, 8, generator=g), people(3, g)
    keypoints, scores = ops.heatmaps_to_keypoints(maps, rois.double())
    assert keypoints.dtype == scores.dtype == torch.float64
    wanted = ops.heatmaps_to_keypoints(maps.double(), rois.double())
    assert torch.equal(keypoints, wanted[0])
    assert torch.equal(scores, wanted[1])


def test_enormous_rois_end(g):
    # A constant map is the worst case: no pixel can be left out. 6.7e7 of them, where the RoI has 1e18.
    began = time.monotonic()
    keypoints, scores = ops.heatmaps_to_keypoints(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0.0, 1e9, 1e9]]))
    assert time.monotonic() - began < 20
    assert keypoints.isfinite().all()
    torch.testing.assert_close(scores, torch.ones(1, 1))
