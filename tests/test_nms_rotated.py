"""Facts of non-maximum suppression of rotated boxes alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch

import structops
from structops import ops, testing
from structops.testing.workloads import nms_rotated as workloads


def drawn(n, g):
    boxes = workloads.clustered_boxes(n, g)
    scores = torch.randint(max(n // 2, 2), (n,), generator=g).float() / n
    return boxes, scores, torch.randint(5, (n,), generator=g)


def greedy(iou, scores, threshold):
    """By the matrix of all IoUs."""
    order = scores.argsort(descending=True, stable=True)
    kept = []
    for i in order.tolist():
        if not kept or not bool((iou[kept, i].double() > threshold).any()):
            kept.append(i)
    return torch.tensor(kept)


@pytest.mark.parametrize("n", [50, 1000, 4000])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_is_greedy_by_box_iou_rotated(n, threshold, g):
    boxes, scores, _ = drawn(n, g)
    wanted = greedy(ops.box_iou_rotated(boxes, boxes), scores, threshold)
    assert torch.equal(ops.nms_rotated(boxes, scores, threshold), wanted)


def test_batched_is_each_class_by_itself(place, g):
    n = 40 if testing.interpreted(structops.current_backend(), place) else 2000
    boxes, scores, idxs = (t.to(place) for t in drawn(n, g))
    kept = ops.batched_nms_rotated(boxes, scores, idxs, 0.3)
    for c in range(5):
        members = (idxs == c).nonzero()[:, 0]
        assert torch.equal(kept[idxs[kept] == c], members[ops.nms_rotated(boxes[members], scores[members], 0.3)])


def test_upright_boxes_as_nms(place, g):
    n = 40 if testing.interpreted(structops.current_backend(), place) else 1000
    corner = torch.randint(0, 60, (n, 2), generator=g).float()
    size = torch.randint(1, 20, (n, 2), generator=g).float() * 2
    scores = torch.rand(n, generator=g).to(place)
    upright = torch.cat([corner, corner + size], 1).to(place)
    quarter = torch.randint(-4, 5, (n, 1), generator=g).float()
    sides = torch.where(quarter % 2 == 0, size, size.flip(1))
    rotated = torch.cat([corner + size / 2, sides, quarter * 90], 1).to(place)
    for threshold in (0.0, 0.25, 0.5):
        assert torch.equal(ops.nms_rotated(rotated, scores, threshold), ops.nms(upright, scores, threshold))


def test_order_of_ties_zeros_and_nan(place):
    far = torch.arange(6, device=place)[:, None] * 100 + torch.tensor([0.0, 0, 1, 1, 0], device=place)
    far[:, 2:4] = 5
    scores = torch.tensor([math.nan, 0.0, -0.0, 0.5, math.nan, -math.inf], device=place)
    assert ops.nms_rotated(far, scores, 0.5).tolist() == [3, 1, 2, 5, 0, 4]


def test_nan_boxes_are_kept_and_suppress_nothing(place):
    good = [0.0, 0, 9, 9, 30]
    boxes = torch.tensor([[0.0, 0, 9, math.nan, 0], good, good, [0, 0, 9, 9, math.inf]], device=place)
    assert ops.nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6], device=place), 0.0).tolist() == [0, 1, 3]


def test_agrees_with_a_loop_over_torchvision(g):
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    if not hasattr(torch.ops.torchvision, "box_iou_rotated"):
        pytest.skip("this torchvision has no IoU of rotated boxes")
    boxes, _, _ = drawn(500, g)
    scores = torch.rand(500, generator=g)
    theirs = workloads.loop_over_iou(torchvision.ops, boxes, scores, 0.3)
    assert torch.equal(ops.nms_rotated(boxes, scores, 0.3), theirs)
