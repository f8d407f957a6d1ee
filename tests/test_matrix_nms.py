"""Facts of matrix NMS alone; what every op promises is in test_ops.py."""

import pytest
import torch
from conftest import places

import structops
from structops import ops, testing
from structops.reference.matrix_nms import matrix_nms as definition
from structops.reference.matrix_nms import pairwise_iou
from structops.testing.cases.matrix_nms import masks
from structops.testing.workloads.matrix_nms import solo
from structops.testing.workloads.nms import clustered_boxes, spread_boxes


def drawn(n, g, draw=clustered_boxes):
    return draw(n, g), torch.rand(n, generator=g), torch.randint(20, (n,), generator=g)


@pytest.mark.parametrize("draw", [clustered_boxes, spread_boxes])
@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_to_the_bit_at_any_size(kernel, draw, g):
    boxes, scores, idxs = drawn(1500, g, draw)
    for classes in (None, idxs):
        wanted = definition(scores, boxes, None, classes, ["linear", "gaussian"].index(kernel), 2.0)
        assert torch.equal(ops.matrix_nms(boxes, scores, idxs=classes, kernel=kernel), wanted)


def test_what_solo_computes(place, g):
    n = 40 if testing.interpreted(structops.current_backend(), place) else 300
    boxes, scores, idxs = drawn(n, g)
    overlap = masks(g, n).float()
    for classes in (None, idxs):
        moved = None if classes is None else classes.to(place)
        of_boxes = ops.matrix_nms(boxes.to(place), scores.to(place), idxs=moved)
        of_masks = ops.matrix_nms(None, scores.to(place), idxs=moved, ious=overlap.to(place))
        torch.testing.assert_close(of_boxes.cpu(), solo(scores, pairwise_iou(boxes), classes))
        torch.testing.assert_close(of_masks.cpu(), solo(scores, overlap, classes))


def test_a_chain_of_three(place):
    # The second is lowered by the first; the third overlaps the second alone, which has less say for that.
    ious = torch.tensor([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]], dtype=torch.float64, device=place)
    scores = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64, device=place)
    lowered = ops.matrix_nms(None, scores, ious=ious, kernel="linear")
    torch.testing.assert_close(lowered.cpu(), torch.tensor([0.9, 0.4, 0.7], dtype=torch.float64))
    lowered = ops.matrix_nms(None, scores[[0, 2]], ious=ious[:2, :2], sigma=2.0)
    torch.testing.assert_close(lowered.cpu(), torch.tensor([0.9, 0.7 * torch.e**-0.5], dtype=torch.float64))


@pytest.mark.skipif(len(places()) < 4, reason="needs a GPU: between CPU backends the cases say the same")
def test_every_backend_gives_the_same(g):
    boxes, scores, idxs = drawn(3000, g)
    wanted = ops.matrix_nms(boxes, scores, idxs=idxs)
    for device, name in places():
        if name != "reference" and not testing.interpreted(name, device):
            with structops.backend(name):
                found = ops.matrix_nms(boxes.to(device), scores.to(device), idxs=idxs.to(device))
            assert torch.equal(found.cpu(), wanted), (device, name)
