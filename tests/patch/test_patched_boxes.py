"""structops.patch: the IoU of boxes, to the bit."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torchvision
from torchvision import tv_tensors

import structops
from structops.testing.checks import identical

from .conftest import boxes_and_scores, code_of

NAMES = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
every_form = pytest.mark.parametrize("name", NAMES)


def call(name: str, *arguments, **options):
    return getattr(torchvision.ops, name)(*arguments, **options)


def both(function):
    """What it gives by torchvision and by structops."""
    results = []
    for context in (contextlib.nullcontext, structops.patch):
        with context():
            results.append(function())
    return results


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shapes", [((70,), (33,)), ((2, 1, 5), (3, 4)), ((0,), (3,)), ((6,), (0,))], ids=str)
def test_values(ran, name, dtype, shapes):
    g = torch.Generator().manual_seed(0)
    sets = [torch.rand(*shape, 4, generator=g, dtype=dtype) * 50 for shape in shapes]
    for boxes in sets:
        boxes[..., 2:] += boxes[..., :2]
        boxes[..., :1, :] = 0  # of area zero, in both: 0 / 0
    theirs, ours = both(lambda: call(name, *sets))
    assert ran == ["box_iou"]
    assert identical(ours, theirs)
    assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("fmt", ["xyxy", "xywh", "cxcywh"])
def test_formats(ran, fmt):
    boxes1, boxes2 = (boxes_and_scores(20, seed)[0] for seed in (0, 1))
    assert identical(*both(lambda: call("box_iou", boxes1, boxes2, fmt=fmt)))
    assert ran == ["box_iou"]


@every_form
def test_gradients(ran, name):
    sets = [boxes_and_scores(20, seed, dtype=torch.float64)[0].requires_grad_() for seed in (0, 1)]

    def gradients():
        first = torch.autograd.grad(call(name, *sets).square().sum(), sets, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), sets)
        return *(g.detach() for g in first), *second

    for theirs, ours in zip(*both(gradients), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert "box_iou" in ran


@every_form
@pytest.mark.parametrize(
    "sets",
    [
        pytest.param(lambda b: (b.half(), b.half()), id="halves"),
        pytest.param(lambda b: (b.int(), b.int()), id="integers"),
        pytest.param(lambda b: (b, b.double()), id="two-types"),
    ],
)
def test_what_only_torchvision_takes(ran, name, sets):
    arguments = sets(boxes_and_scores(9)[0])
    assert identical(*both(lambda: call(name, *arguments)))
    assert set(ran) <= {"box_iou"}  # which torchvision's own distance IoU of float boxes calls


def test_rotated_formats_are_torchvisions():
    boxes = torch.cat([boxes_and_scores(9)[0], torch.full((9, 1), 30.0)], 1)
    torch.testing.assert_close(*both(lambda: call("box_iou", boxes, boxes, fmt="cxcywhr")))


@every_form
@pytest.mark.parametrize(
    "sets",
    [
        pytest.param((torch.zeros(3, 3), torch.zeros(2, 4)), id="width"),
        pytest.param((torch.zeros(2, 3, 4), torch.zeros(3, 3, 4)), id="batches"),
        pytest.param((None, torch.zeros(3, 4)), id="none"),
    ],
)
def test_errors_are_torchvisions_own(name, sets):
    with pytest.raises(Exception) as theirs:
        call(name, *sets)
    with structops.patch(), pytest.raises(theirs.type) as ours:
        call(name, *sets)
    assert str(ours.value) == str(theirs.value)


def test_unknown_formats_are_refused_as_ever():
    with structops.patch(), pytest.raises(ValueError, match="Unsupported format 'yxyx'"):
        call("box_iou", torch.zeros(3, 4), torch.zeros(3, 4), fmt="yxyx")


@every_form
def test_tv_tensors(name):
    boxes, other = (boxes_and_scores(9, seed)[0] for seed in (0, 1))
    labelled = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(128, 128))
    theirs, ours = both(lambda: call(name, labelled, other))
    assert type(ours) is type(theirs)
    assert identical(ours, theirs)


@every_form
def test_function_transforms(ran, name):
    boxes, other = (boxes_and_scores(6, seed, dtype=torch.float64)[0] for seed in (0, 1))
    tangent = torch.ones_like(boxes)

    def transformed():
        one_by_one = torch.func.vmap(lambda b: call(name, b[None], other)[0])(boxes)
        return one_by_one, torch.func.jvp(lambda b: call(name, b, other), (boxes,), (tangent,))[1]

    for theirs, ours in zip(*both(transformed), strict=True):
        assert identical(ours, theirs)
    assert ran == []


class Overlaps(torch.nn.Module):
    def forward(self, boxes1: torch.Tensor, boxes2: torch.Tensor):
        return (
            torchvision.ops.box_iou(boxes1, boxes2),
            torchvision.ops.generalized_box_iou(boxes1, boxes2),
            torchvision.ops.distance_box_iou(boxes1, boxes2),
            torchvision.ops.complete_box_iou(boxes1, boxes2),
        )


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("how", ["scripted", "traced", "compiled"])
def test_graphs_stay_torchvisions(ran, how):
    sets = [boxes_and_scores(9, seed)[0] for seed in (0, 1)]
    expected = Overlaps()(*sets)
    with structops.patch():
        if how == "scripted":
            graph = torch.jit.script(Overlaps())
            assert "structops" not in code_of(graph.inlined_graph)
        elif how == "traced":
            graph = torch.jit.trace(Overlaps(), sets, check_trace=False)  # the check runs without tracing
            assert "structops" not in code_of(graph.inlined_graph)
        else:
            torch._dynamo.reset()
            graph = torch.compile(Overlaps(), backend="aot_eager", fullgraph=True)
        for ours, theirs in zip(graph(*sets), expected, strict=True):
            assert identical(ours, theirs)
    assert ran == []
