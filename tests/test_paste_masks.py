"""paste_masks beyond the case database: torchvision's numbers to the bit, and the packed form as others read it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from structops import ops
from structops.reference._fma import fma
from structops.testing.workloads.paste_masks import detections

FUSES = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.fixture
def theirs():
    return pytest.importorskip(
        "torchvision.models.detection.roi_heads", reason="torchvision is not installed"
    ).paste_masks_in_image


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [7, 14, 28])
def test_torchvisions_numbers(theirs, g, dtype, side):
    """Boxes of every size, on either side of the size at which torch takes another kernel."""
    for size in ((60, 67), (200, 333)):
        corner = torch.rand(30, 2, generator=g) * torch.tensor([size[1], size[0]]) * 0.8
        boxes = torch.cat([corner, corner + 1 + torch.rand(30, 2, generator=g) ** 2 * size[0]], 1).to(dtype)
        masks = torch.rand(30, 1, side, side, generator=g).to(dtype)
        found, wanted = ops.paste_masks(masks, boxes, size, None), theirs(masks, boxes, size)
        assert found.dtype == wanted.dtype
        assert found.stride() == wanted.stride()
        if FUSES:
            assert torch.equal(found, wanted)
        else:
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-7)


@pytest.mark.skipif(not FUSES, reason="torch rounds differently here")
def test_torchvisions_flags_of_realistic_masks(theirs, g):
    masks, boxes = detections(12, g)
    for threshold in (0.5, 0.3, 0.0):
        wanted = theirs(masks, boxes, (800, 1333))[:, 0] > threshold
        assert torch.equal(ops.paste_masks(masks, boxes, (800, 1333), threshold), wanted)


def test_packed_as_numpy_unpacks(place, g):
    masks, boxes = (t.to(place) for t in detections(5, g))
    flags = ops.paste_masks(masks, boxes, (90, 203))
    packed = ops.paste_masks(masks, boxes, (90, 203), packed=True)
    unpacked = np.unpackbits(packed.cpu().numpy(), axis=-1, count=203, bitorder="little")
    assert np.array_equal(unpacked.astype(bool), flags.cpu().numpy())
    assert int((packed[..., -1] >> 203 % 8).sum()) == 0


def test_boxes_of_another_type_are_cut_in_theirs(theirs):
    # As a float 2^24 + 1 is 2^24: one pixel less.
    boxes = torch.tensor([[2.0**24 - 3, 0, 2.0**24 + 1, 3]], dtype=torch.float64) - torch.tensor([2.0**24 - 5, 0] * 2)
    masks = torch.full((1, 1, 4, 4), 1.0)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(
            ops.paste_masks(masks, boxes.to(dtype), (9, 12), None), theirs(masks, boxes.to(dtype), (9, 12))
        )


def test_left_of_the_image_or_above_is_nothing():
    """torchvision fails on these: Python takes their negative ends as counted from the other side."""
    boxes = torch.tensor([[-30.0, 2, -20, 8], [2, -30, 8, -20], [-30, -30, -20, -20]])
    assert not ops.paste_masks(torch.ones(3, 1, 4, 4), boxes, (20, 20)).any()


def test_fma_rounds_once(g):
    """Against exact arithmetic: products that cancel with what is added but for a few bits."""
    a, b = (torch.randn(200, generator=g, dtype=torch.float64) for _ in range(2))
    for dtype in (torch.float32, torch.float64):
        x, y = a.to(dtype), b.to(dtype)
        for z in (-(x * y), -(x * y) * (1 + 2.0**-12), torch.ones_like(x), x * 2.0**30):
            exact = [
                Fraction(p) * Fraction(q) + Fraction(r)
                for p, q, r in zip(*(t.tolist() for t in (x, y, z)), strict=True)
            ]
            if dtype == torch.float64:
                wanted = torch.tensor([float(e) for e in exact], dtype=dtype)
            else:
                wanted = torch.tensor([_nearest_float(e) for e in exact], dtype=dtype)
            assert torch.equal(fma(x, y, z), wanted)


def _nearest_float(exact: Fraction) -> float:
    """The float32 nearest to a fraction: of the rounded double and its neighbours in float32."""
    near = np.float32(float(exact))
    candidates = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    return float(min(candidates, key=lambda c: (abs(Fraction(float(c)) - exact), int(c.view(np.uint32)) & 1)))
