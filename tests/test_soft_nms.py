"""Facts of soft non-maximum suppression alone; what every op promises is in test_ops.py."""

import pytest
import torch
from conftest import places

import structops
from structops import ops, testing
from structops.reference._exp import exp_of_negative
from structops.reference.soft_nms import soft_nms as definition
from structops.testing.workloads.nms import clustered_boxes, spread_boxes


def drawn(n, g, draw=clustered_boxes):
    return draw(n, g), torch.rand(n, generator=g), torch.randint(20, (n,), generator=g)


@pytest.mark.parametrize("draw", [clustered_boxes, spread_boxes])
@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_to_the_bit_at_any_size(method, draw, g):
    boxes, scores, idxs = drawn(1500, g, draw)
    for classes in (None, idxs):
        wanted = definition(boxes, scores, classes, 0.3, ["hard", "linear", "gaussian"].index(method), 0.5, 0.001, 1500)
        found = ops.soft_nms(boxes, scores, idxs=classes, method=method)
        assert all(map(torch.equal, found, wanted))


def test_hard_is_nms(place, g):
    slow = testing.interpreted(structops.current_backend(), place)
    boxes, scores, idxs = (t.to(place) for t in drawn(40 if slow else 1000, g))
    for classes in (None, idxs):
        indices, decayed, count = ops.soft_nms(boxes, scores, 0.5, idxs=classes, method="hard", score_threshold=0.0)
        kept = ops.nms(boxes, scores, 0.5) if classes is None else ops.batched_nms(boxes, scores, classes, 0.5)
        kept = kept[scores[kept] > 0]
        assert torch.equal(indices[:count], kept)
        assert torch.equal(decayed[:count], scores[kept])


def test_what_the_paper_says(place):
    # IoU 1/2 with the first, none between the others; then the score of the second is under that of the third.
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4], [20, 20, 28, 28]], device=place)
    scores = torch.tensor([0.9, 0.8, 0.6], device=place)
    indices, decayed, count = ops.soft_nms(boxes, scores, 0.3)
    assert indices.tolist() == [0, 2, 1]
    torch.testing.assert_close(decayed.cpu(), torch.tensor([0.9, 0.6, 0.4]))
    assert count == 3
    _, decayed, _ = ops.soft_nms(boxes, scores, 0.3, method="gaussian", sigma=0.5)
    torch.testing.assert_close(decayed.cpu(), torch.tensor([0.9, 0.6, 0.8 * torch.e**-0.5]))
    indices, decayed, count = ops.soft_nms(boxes, scores, 0.3, score_threshold=0.5, max_output=4)
    assert indices.tolist() == [0, 2, -1, -1]
    assert decayed.tolist()[2:] == [0, 0]
    assert count == 2


def test_a_cut_is_the_beginning(g):
    boxes, scores, idxs = drawn(2000, g)
    whole = ops.soft_nms(boxes, scores, idxs=idxs, method="gaussian")
    indices, decayed, count = ops.soft_nms(boxes, scores, idxs=idxs, method="gaussian", max_output=300)
    assert torch.equal(indices, whole[0][:300])
    assert torch.equal(decayed, whole[1][:300])
    assert count == 300


@pytest.mark.parametrize(("dtype", "lowest"), [(torch.float32, -87.0), (torch.float64, -708.0)])
def test_the_exponential_is_accurate(dtype, lowest):
    x = torch.cat([torch.linspace(lowest, 0, 200_001, dtype=dtype), -torch.logspace(-40, 0, 2000).to(dtype)])
    # exp2 of an extended product would be needed to judge doubles by more than their own exponential.
    wanted = x.double().exp()
    unit = torch.finfo(dtype).eps * torch.exp2(torch.floor(torch.log2(wanted)))
    assert ((exp_of_negative(x).double() - wanted).abs() <= 1.5 * unit).all()
    ends = torch.tensor([0.0, -0.0, 2 * lowest, -torch.inf], dtype=dtype)
    assert exp_of_negative(ends).tolist() == [1, 1, 0, 0]


@pytest.mark.skipif(len(places()) < 4, reason="needs a GPU: between CPU backends the cases say the same")
def test_every_backend_gives_the_same(g):
    boxes, scores, idxs = drawn(3000, g)
    wanted = ops.soft_nms(boxes, scores, idxs=idxs, method="gaussian")
    for device, name in places():
        if name != "reference" and not testing.interpreted(name, device):
            with structops.backend(name):
                found = ops.soft_nms(boxes.to(device), scores.to(device), idxs=idxs.to(device), method="gaussian")
            assert all(torch.equal(a.cpu(), b) for a, b in zip(found, wanted, strict=True)), (device, name)
