"""Facts of box coding alone; what every op promises is in test_ops.py."""

from __future__ import annotations

import pytest
import torch

from structops import ops
from structops.testing.cases.box_coding import ROWS, anchors, deltas, near
from structops.testing.checks import identical

both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
SSD = (10.0, 10.0, 5.0, 5.0)


@pytest.fixture
def coders():
    return pytest.importorskip("torchvision.models.detection._utils")


@both_types
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), SSD])
def test_deltas_are_torchvisions_to_the_bit(coders, weights, dtype, g):
    coder = coders.BoxCoder(weights)
    these = torch.cat([anchors(g, 1200), torch.tensor([row for rows in ROWS.values() for row in rows])]).to(dtype)
    codes = deltas(g, len(these), 4 * 7, spread=4).to(dtype)
    found = ops.decode_boxes(codes, these, weights=weights)
    assert identical(found, coder.decode(codes, [these]))
    assert identical(found, ops.decode_boxes(codes.view(-1, 7, 4), these[:, None], weights=weights))
    boxes = these.flip(0)
    assert identical(ops.encode_boxes(boxes, these, weights=weights), coder.encode_single(boxes, these))


@both_types
@pytest.mark.parametrize("normalize", [True, False])
def test_distances_are_torchvisions_to_the_bit(coders, normalize, dtype, g):
    coder = coders.BoxLinearCoder(normalize)
    these = torch.cat([anchors(g, 1200), torch.tensor([row for rows in ROWS.values() for row in rows])]).to(dtype)
    codes, options = deltas(g, len(these), 4).to(dtype), {"coding": "distances", "normalize_by_size": normalize}
    assert identical(ops.decode_boxes(codes, these, **options), coder.decode(codes, these))
    boxes = these.flip(0)
    assert identical(ops.encode_boxes(boxes, these, **options), coder.encode(these, boxes))


@pytest.mark.parametrize(
    "options",
    [
        {"weights": SSD},
        {"coding": "distances"},
        {"coding": "distances", "normalize_by_size": False},
        {"coding": "cells", "stride": 16.0},
    ],
    ids=["deltas", "distances", "pixels", "cells"],
)
def test_decoding_undoes_encoding(place, options, g):
    these = anchors(g, 50)
    boxes, these = near(g, these).to(place), these.to(place)
    codes = ops.encode_boxes(boxes, these, **options)
    torch.testing.assert_close(ops.decode_boxes(codes, these, **options), boxes, rtol=0, atol=1e-12)


def test_cells_by_hand(place):
    """YOLO's own formula: (sigmoid(t) + cell) * stride, and exp(t) times the prior."""
    t = torch.tensor([0.3, -1.2, 0.5, -0.25], dtype=torch.float64, device=place)
    prior = torch.tensor([30.0, 62.0], dtype=torch.float64, device=place)
    cell = torch.tensor([5.0, 7.0], dtype=torch.float64, device=place)
    middle = (cell + 0.5) * 16
    found = ops.decode_boxes(t, torch.cat([middle - prior / 2, middle + prior / 2]), coding="cells", stride=16)
    centre, size = (t[:2].sigmoid() + cell) * 16, t[2:].exp() * prior
    torch.testing.assert_close(found, torch.cat([centre - size / 2, centre + size / 2]), rtol=0, atol=1e-12)


def test_ssd_variances_are_weights(place, g):
    these, t = anchors(g, 20).to(place), deltas(g, 20, 4).to(place)
    variances = torch.tensor([0.1, 0.1, 0.2, 0.2], dtype=torch.float64, device=place)
    wanted = ops.decode_boxes(t * variances, these)
    torch.testing.assert_close(ops.decode_boxes(t, these, weights=SSD), wanted, rtol=0, atol=1e-12)


def test_types(place):
    box = torch.tensor([[0.0, 0, 8, 8]], device=place)
    for first, second, result in (
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float64, torch.float64),
    ):
        code, anchor = torch.zeros_like(box).to(first).requires_grad_(), box.to(second).requires_grad_()
        found = ops.decode_boxes(code, anchor)
        assert found.dtype == result
        assert torch.equal(found, box.to(result))
        assert [t.dtype for t in torch.autograd.grad(found.sum(), (code, anchor))] == [first, second]
