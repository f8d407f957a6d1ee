"""Facts of the IoU of rotated boxes alone; what every op promises is in test_ops.py.

The comparison with exact polygon clipping takes 20,000 pairs here; ``STRUCTOPS_ROTATED_PAIRS=1000000 python -m pytest
tests/test_box_iou_rotated.py -k clipping`` takes a million (half a minute).
"""

import math
import os

import pytest
import torch

import structops
from structops import ops, testing

PAIRS = int(os.environ.get("STRUCTOPS_ROTATED_PAIRS", "20000"))


def uniform(g, low, high, *size):
    return low + (high - low) * torch.rand(*size, generator=g, dtype=torch.float64)


def ordinary(g, n):
    """Pairs [n, 5], [n, 5] of boxes of 1 to 300 pixels, sides in a ratio of up to 20, near each other."""
    size, ratio = uniform(g, 0, math.log(300), n).exp(), uniform(g, -3, 3, n).exp()
    a = torch.stack([*uniform(g, -1000, 1000, 2, n), size, size * ratio, uniform(g, -720, 720, n)], 1)
    b = a.clone()
    b[:, :2] += uniform(g, -1, 1, n, 2) * size[:, None]
    b[:, 2:4] *= uniform(g, -1, 1, n, 2).exp()
    b[:, 4] = uniform(g, -720, 720, n)
    return a, b


def parallel(g, n):
    a, b = ordinary(g, n)
    b[:, 4] = a[:, 4] + 90 * torch.randint(-3, 4, (n,), generator=g)
    return a, b


def identical(g, n):
    a, _ = ordinary(g, n)
    return a, a


def tiny_and_large(g, n):
    a, b = ordinary(g, n)
    b[:, 2:4] = a[:, 2:4] * uniform(g, -12, -3, n, 2).exp()
    return a, b


def nearly_parallel(g, n):
    a, _ = ordinary(g, n)
    b = a.clone()
    b[:, 4] += uniform(g, -30, 0, n).exp()
    return a, b


def far_from_the_origin(g, n):
    a, b = ordinary(g, n)
    shift = a[:, :2] * 999
    return a + torch.nn.functional.pad(shift, (0, 3)), b + torch.nn.functional.pad(shift, (0, 3))


def touching(g, n):
    a, _ = ordinary(g, n)
    b, angle = a.clone(), a[:, 4].deg2rad()
    b[:, 0] += a[:, 2] * angle.cos()
    b[:, 1] -= a[:, 2] * angle.sin()
    return a, b


def needles(g, n):
    a, b = ordinary(g, n)
    a[:, 3] = a[:, 2] * uniform(g, -9, 9, n).exp()
    b[:, 3] = b[:, 2] * uniform(g, -9, 9, n).exp()
    return a, b


KINDS = (ordinary, parallel, identical, tiny_and_large, nearly_parallel, far_from_the_origin, touching, needles)


def clipped(boxes1, boxes2):
    """IoU of pairs by shapely's polygons, in float64 relative to the first box's centre."""
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    centre = boxes1[:, None, :2]

    def polygons(boxes):
        angle = boxes[:, 4].fmod(360.0).deg2rad()[:, None]
        u = boxes[:, 2:3] / 2 * torch.tensor([-1.0, 1, 1, -1], dtype=torch.float64)
        v = boxes[:, 3:4] / 2 * torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)
        x, y = u * angle.cos() + v * angle.sin(), v * angle.cos() - u * angle.sin()
        return shapely.polygons((torch.stack([x, y], 2) + (boxes[:, None, :2] - centre)).numpy())

    overlap = torch.from_numpy(shapely.area(shapely.intersection(polygons(boxes1), polygons(boxes2))))
    return overlap / (boxes1[:, 2] * boxes1[:, 3] + boxes2[:, 2] * boxes2[:, 3] - overlap)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_agrees_with_exact_clipping(kind, g):
    boxes1, boxes2 = (boxes.float() for boxes in kind(g, PAIRS // len(KINDS)))
    wanted = clipped(boxes1.double(), boxes2.double())
    found = ops.box_iou_rotated(boxes1, boxes2, elementwise=True)
    # An IoU in float32 has half a unit in the last place, 3e-8; its own arithmetic adds nothing to that.
    assert (found.double() - wanted).abs().max() < 4e-8
    assert (ops.box_iou_rotated(boxes1.double(), boxes2.double(), elementwise=True) - wanted).abs().max() < 1e-12


def test_matrix_and_pairs_agree(place, g):
    n = 20 if testing.interpreted(structops.current_backend(), place) else 200
    boxes1, boxes2 = (boxes.float().to(place) for boxes in ordinary(g, n))
    pairs = ops.box_iou_rotated(boxes1, boxes2, elementwise=True)
    assert torch.equal(ops.box_iou_rotated(boxes1, boxes2).diagonal(), pairs)


def test_known_values(place):
    unit = torch.tensor([[0.0, 0, 2, 2, 0]], device=place)
    octagon = torch.tensor([[0.0, 0, 2, 2, 45]], device=place)
    overlap = 8 * (math.sqrt(2) - 1)  # the regular octagon around the unit circle
    assert ops.box_iou_rotated(unit, octagon).item() == pytest.approx(overlap / (8 - overlap), abs=1e-7)
    # Positive angles are counter-clockwise on a screen: a bar turned by 45 degrees goes up to the right.
    bar = torch.tensor([[0.0, 0, 10, 1, 45]], device=place)
    corners = torch.tensor([[3.0, -3, 1, 1, 0], [3, 3, 1, 1, 0]], device=place)
    up_right, down_right = ops.box_iou_rotated(bar, corners)[0].tolist()
    assert up_right > 0.05
    assert down_right == 0


def test_a_tiny_box_far_away_does_not_overlap(place):
    # torchvision 0.29 gives 1.0
    tiny = torch.tensor([[0.0, 0, 1e-5, 1e-5, 10], [0, 0, 1e-5, 1e-5, 0]], device=place)
    away = torch.tensor([[1000.0, 0, 1e-5, 1e-5, 20], [1000, 0, 50, 50, 0]], device=place)
    assert ops.box_iou_rotated(tiny, away).count_nonzero() == 0


@pytest.mark.parametrize("size", [1e-30, 1e-5, 1.0, 1e30])
def test_does_not_depend_on_the_unit(size, place, g):
    boxes1, boxes2 = (boxes[:10].to(place) for boxes in ordinary(g, 10))
    scale = torch.tensor([size] * 4 + [1.0], dtype=torch.float64, device=place)
    found = ops.box_iou_rotated(boxes1 * scale, boxes2 * scale)
    assert (found - ops.box_iou_rotated(boxes1, boxes2)).abs().max() < 1e-12


def test_boxes_of_two_types(place):
    single = torch.tensor([[0.0, 0, 2, 2, 30]], device=place)
    assert ops.box_iou_rotated(single, single.double()).dtype == torch.float64
    assert ops.box_iou_rotated(single.half(), single).dtype == torch.float32
    assert ops.box_iou_rotated(single.half(), single.bfloat16()).item() == 1


def test_no_gradient_flows(place):
    boxes = torch.tensor([[0.0, 0, 2, 2, 30]], device=place, requires_grad=True)
    assert not ops.box_iou_rotated(boxes, boxes).requires_grad


def test_agrees_with_torchvision_where_it_is_right(g):
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    if not hasattr(torch.ops.torchvision, "box_iou_rotated"):
        pytest.skip("this torchvision has no IoU of rotated boxes")
    boxes1, boxes2 = (boxes.float() for boxes in ordinary(g, 300))
    theirs = torchvision.ops.box_iou(boxes1, boxes2, fmt="cxcywhr")
    assert (ops.box_iou_rotated(boxes1, boxes2) - theirs).abs().max() < 1e-4
