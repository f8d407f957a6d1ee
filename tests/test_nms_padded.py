"""Facts of fixed-shape suppression alone; what every op promises is in test_ops.py."""

import pytest
import torch
from conftest import places

import structops
from structops import ops, testing
from structops.testing.recording import Recorder, captured
from structops.testing.workloads.nms import clustered_boxes, spread_boxes


def drawn(images, n, g, draw=clustered_boxes):
    """Boxes [B, N, 4], scores [B, N] with ties, classes [B, N]."""
    scores = torch.randint(max(n // 2, 2), (images, n), generator=g) / n
    return torch.stack([draw(n, g) for _ in range(images)]), scores, torch.randint(20, (images, n), generator=g)


@pytest.mark.parametrize("draw", [clustered_boxes, spread_boxes])
@pytest.mark.parametrize("max_output", [100, 1000, 5000])
def test_each_image_is_nms_of_its_boxes(draw, max_output, g):
    boxes, scores, idxs = drawn(3, 3000, g, draw)
    counts = torch.tensor([3000, 1234, 0])
    for classes in (None, idxs):
        indices, found = ops.nms_padded(boxes, scores, 0.5, max_output, idxs=classes, valid=counts, score_threshold=0.1)
        for image in range(3):
            members = (scores[image, : counts[image]].double() > 0.1).nonzero()[:, 0]
            of_members = torch.zeros_like(members) if classes is None else classes[image, members]
            kept = ops.batched_nms(boxes[image, members], scores[image, members], of_members, 0.5)[:max_output]
            assert found[image] == len(kept)
            assert torch.equal(indices[image, : len(kept)], members[kept])
            assert (indices[image, len(kept) :] == -1).all()


def test_boxes_that_take_no_part_change_nothing(place, g):
    slow = testing.interpreted(structops.current_backend(), place)
    n = 30 if slow else 500
    boxes, scores, idxs = (t.to(place) for t in drawn(2, n, g))
    takes = torch.rand(2, n, generator=g).to(place) < 0.6
    wanted = ops.nms_padded(boxes, scores, 0.5, n, idxs=idxs, valid=takes)
    boxes, scores, idxs = boxes.clone(), scores.clone(), idxs.clone()
    boxes[~takes], scores[~takes], idxs[~takes] = float("nan"), float("inf"), 7
    for got, want in zip(ops.nms_padded(boxes, scores, 0.5, n, idxs=idxs, valid=takes), wanted, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_nothing_depends_on_data_but_the_values(backend, g):
    # On a GPU such an operator is a wait for it; here the same Python runs on the CPU.
    if reason := structops._backend.unusable(backend, "cpu"):
        pytest.skip(reason)
    boxes, scores, idxs = drawn(2, 20, g)
    with structops.backend(backend), Recorder() as recorder:
        ops.nms_padded(boxes, scores, 0.5, 8, idxs=idxs, valid=torch.tensor([20, 3]), score_threshold=0.1)
        ops.nms_padded(boxes, scores, 0.5, 8, valid=scores > 0.2)
        assert recorder.waits == []
        boxes.nonzero()
    assert recorder.waits == ["nonzero"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_captured_in_a_cuda_graph(g):
    boxes, scores, idxs = (t.cuda() for t in drawn(4, 3000, g))
    run = lambda: ops.nms_padded(boxes, scores, 0.5, 300, idxs=idxs, score_threshold=0.1)  # noqa: E731
    graph, found = captured(run)
    scores.copy_(scores.flip(1))
    graph.replay()
    assert all(map(torch.equal, found, run()))


@pytest.mark.skipif(len(places()) < 4, reason="needs a GPU: between CPU backends the cases say the same")
def test_every_backend_gives_the_same_indices(g):
    arguments = drawn(6, 9000, g)
    wanted = ops.nms_padded(*arguments[:2], 0.5, 2000, idxs=arguments[2])
    for device, name in places():
        if name != "reference" and not testing.interpreted(name, device):
            boxes, scores, idxs = (t.to(device) for t in arguments)
            with structops.backend(name):
                found = ops.nms_padded(boxes, scores, 0.5, 2000, idxs=idxs)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(found, wanted, strict=True)), (device, name)
