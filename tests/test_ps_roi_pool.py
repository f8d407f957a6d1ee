"""Facts of position-sensitive RoI Pool alone; what it shares with RoI Align's sibling is in test_ps_roi_align.py."""

import math

import pytest
import torch

from structops import ops


def _pooled(place: str, row: list[float], size: int = 6, pooled: int = 1) -> torch.Tensor:
    """One class of one box on maps that hold ``10 * y + x`` at each pixel."""
    at = torch.arange(size, dtype=torch.float64, device=place)
    x = (10 * at[:, None] + at).expand(1, pooled**2, size, size)
    return ops.ps_roi_pool(x, torch.tensor([[0, *row]], dtype=torch.float64, device=place), pooled)[0, 0]


def test_corners_are_rounded_and_the_far_one_is_outside(place):
    assert _pooled(place, [1, 1, 3, 3]).item() == 16.5  # pixels 1 and 2
    assert _pooled(place, [1.4, 1.4, 3.4, 3.4]).item() == 16.5
    assert _pooled(place, [0.5, 0.5, 2.5, 2.5]).item() == 16.5  # halves away from zero
    assert _pooled(place, [-0.5, -0.5, 1, 1]).item() == 0  # from -1: pixel 0 alone is on the map


def test_a_box_is_a_pixel_at_least(place):
    assert _pooled(place, [3, 2, 3, 2]).item() == 23
    assert _pooled(place, [3, 2, 1, 0]).item() == 23


def test_the_last_row_and_column_are_never_read(place):
    assert _pooled(place, [0, 0, 6, 6]).item() == pytest.approx(22)  # the mean of 0 .. 4 along both axes
    assert _pooled(place, [5, 5, 6, 6]).item() == 0


def test_bins_share_the_pixels_they_split(place):
    # three pixels in two bins: the middle one is in both
    assert _pooled(place, [0, 0, 3, 3], pooled=2).tolist() == [[5.5, 6.5], [15.5, 16.5]]


def test_edges_of_bins_are_exact(place):
    # In floating point 7 * (n / 7) is above n for some lengths n, and the last bin of torchvision a pixel longer.
    lengths = [n for n in range(1, 400) if math.ceil(7 * (n / 7)) != n]
    assert lengths
    for n in lengths[:1]:
        x = torch.zeros(1, 49, 1 + 1, n + 3, dtype=torch.float64, device=place)
        x[..., n] = 1  # the first pixel beyond the box
        out = ops.ps_roi_pool(x, torch.tensor([[0.0, 0, 0, n, 1]], dtype=torch.float64, device=place), 7)
        assert not out.any()


def test_agrees_with_torchvision_inside_the_map(g):
    torchvision = pytest.importorskip("torchvision")
    # Where its backward is its forward's: no box reaches the last row or column.
    x = torch.randn(2, 27, 20, 30, generator=g).requires_grad_()
    corner, size = torch.rand(40, 2, generator=g) * torch.tensor([15.0, 9]), 1 + 9 * torch.rand(40, 2, generator=g)
    boxes = torch.cat([torch.arange(40.0)[:, None] % 2, corner, corner + size], 1)
    results = []
    for function in (ops.ps_roi_pool, torchvision.ops.ps_roi_pool):
        out = function(x, boxes, 3)
        results.append((out, torch.autograd.grad(out, x, torch.ones_like(out))[0]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
