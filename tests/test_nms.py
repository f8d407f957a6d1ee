"""Facts of non-maximum suppression alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch
from conftest import places

import structops
from structops import ops, testing


def crowded(n, g, dtype=torch.float32):
    """Boxes [n, 4] in overlapping groups, scores [n] with ties, classes [n]."""
    centres = torch.rand(max(n // 20, 1), 4, generator=g, dtype=dtype) * 1000
    centres[:, 2:] = centres[:, :2] + 10 + centres[:, 2:] / 10
    boxes = centres[torch.randint(len(centres), (n,), generator=g)] + 8 * torch.rand(n, 4, generator=g, dtype=dtype)
    scores = torch.randint(max(n // 4, 2), (n,), generator=g).to(dtype) / n
    return boxes, scores, torch.randint(80, (n,), generator=g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [100, 1000, 5000, 20_000, 50_000])
def test_index_for_index_with_torchvision(n, dtype, g):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    boxes, scores, idxs = crowded(n, g, dtype)
    specs = testing.specs()
    for threshold in (0.3, 0.5, 0.7):
        wanted = specs["nms"].peer["torchvision"](boxes, scores, threshold)
        assert torch.equal(ops.nms(boxes, scores, threshold), wanted)
    wanted = specs["batched_nms"].peer["torchvision"](boxes, scores, idxs, 0.5)  # its nms, class by class
    assert torch.equal(ops.batched_nms(boxes, scores, idxs, 0.5), wanted)


def test_batched_is_each_class_by_itself(place, g):
    slow = testing.interpreted(structops.current_backend(), place)
    n, classes = (60, 3) if slow else (3000, 80)
    boxes, scores, idxs = (t.to(place) for t in crowded(n, g))
    idxs = idxs % classes
    kept = ops.batched_nms(boxes, scores, idxs, 0.5)
    for c in range(classes):
        members = (idxs == c).nonzero()[:, 0]
        assert torch.equal(kept[idxs[kept] == c], members[ops.nms(boxes[members], scores[members], 0.5)])
    assert torch.equal(kept, ops.batched_nms(boxes, scores, idxs - 2**40, 0.5))


def test_classes_with_negative_coordinates_do_not_meet(place):
    # torchvision adds class * (largest coordinate + 1) to the coordinates: with negative ones, different classes
    # land on one another.
    boxes = torch.tensor([[-20.0, -20, -1, -1], [-20, -20, -1, -1]])
    scores, idxs = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    assert ops.batched_nms(*(t.to(place) for t in (boxes, scores, idxs)), 0.5).tolist() == [0, 1]


def test_torchvision_has_that_defect():
    boxes_module = pytest.importorskip("torchvision.ops.boxes", reason="torchvision is not installed")
    boxes = torch.tensor([[-20.0, -20, -1, -1], [-20, -20, -1, -1]])
    kept = boxes_module._batched_nms_coordinate_trick(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5)
    assert kept.tolist() == [0]


def test_order_of_ties_zeros_and_nan(place):
    far = torch.arange(6, device=place)[:, None] * 100 + torch.tensor([0.0, 0, 1, 1], device=place)
    scores = torch.tensor([math.nan, 0.0, -0.0, 0.5, math.nan, -math.inf], device=place)
    assert ops.nms(far, scores, 0.5).tolist() == [3, 1, 2, 5, 0, 4]


def test_nan_boxes_are_kept_and_suppress_nothing(place):
    boxes = torch.tensor([[0.0, 0, 9, math.nan], [0, 0, 9, 9], [0, 0, 9, 9], [math.nan, 0, 9, 9]], device=place)
    assert ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6], device=place), 0.0).tolist() == [0, 1, 3]


def test_threshold_is_not_rounded_to_float(place):
    # IoU exactly 0.5 against the next numbers on both sides, which float32 cannot tell from it
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4]], device=place)
    scores = torch.tensor([0.9, 0.8], device=place)
    assert ops.nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert ops.nms(boxes, scores, math.nextafter(0.5, 1)).tolist() == [0, 1]
    assert ops.nms(boxes, scores, math.nextafter(0.5, 0)).tolist() == [0]


def test_half_boxes_are_compared_in_float32(place, g):
    boxes, scores, _ = (t.to(place) for t in crowded(64, g))
    for dtype in (torch.float16, torch.bfloat16):
        half, s = boxes.to(dtype), scores.to(dtype)
        assert torch.equal(ops.nms(half, s, 0.5), ops.nms(half.float(), s.float(), 0.5))


@pytest.mark.skipif(len(places()) < 4, reason="needs a GPU: between CPU backends the cases say the same")
@pytest.mark.parametrize("op", ["nms", "batched_nms"])
@pytest.mark.parametrize("n", [100, 1000, 5000, 20_000])
def test_every_backend_gives_the_same_indices(op, n, g):
    boxes, scores, idxs = crowded(n, g)
    arguments = (boxes, scores, idxs) if op == "batched_nms" else (boxes, scores)
    results = {}
    for device, name in places():
        if not testing.interpreted(name, device) and (name != "reference" or n <= 1000):
            with structops.backend(name):
                results[device, name] = getattr(ops, op)(*(t.to(device) for t in arguments), 0.5).cpu()
    first = results["cpu", "native"]
    assert [key for key, kept in results.items() if not torch.equal(kept, first)] == []
