"""Facts of the IoU of boxes alone; what every op promises is in test_ops.py."""

from __future__ import annotations

import pytest
import torch

from structops import ops, testing
from structops.testing.cases.box_iou import ROWS, crowd, tensor
from structops.testing.checks import identical

NAMES = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
every_form = pytest.mark.parametrize("name", NAMES)
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@every_form
@both_types
def test_values_are_torchvisions_to_the_bit(name, dtype, g):
    """Degenerate and infinite boxes among them; on a CPU, where torchvision runs one operation after the other."""
    torchvision = pytest.importorskip("torchvision")
    hostile = torch.cat([tensor(*rows) for rows in ROWS.values()] + [tensor([0, 0, 1e30, 1e30])])
    for boxes1, boxes2 in ((crowd(g, 37), crowd(g, 530)), (crowd(g, 3, 9), crowd(g, 1, 9)), (hostile, hostile)):
        boxes1, boxes2 = boxes1.to(dtype), boxes2.to(dtype)
        boxes1[..., :5, :] = boxes2[..., :5, :]
        assert identical(getattr(ops, name)(boxes1, boxes2), getattr(torchvision.ops, name)(boxes1, boxes2))


@both_types
@pytest.mark.parametrize("fmt", ["xywh", "cxcywh"])
def test_formats_are_torchvisions_to_the_bit(fmt, dtype, g):
    torchvision = pytest.importorskip("torchvision")
    hostile = torch.cat([tensor(*rows) for rows in ROWS.values()])
    for boxes1, boxes2 in ((crowd(g, 40), crowd(g, 50)), (hostile, hostile)):
        boxes1, boxes2 = boxes1.to(dtype), boxes2.to(dtype)
        assert identical(ops.box_iou(boxes1, boxes2, fmt), torchvision.ops.box_iou(boxes1, boxes2, fmt))


@every_form
def test_gradients_of_equal_coordinates_are_torchvisions(name, g):
    torchvision = pytest.importorskip("torchvision")
    if torch.__version__ < "2.14":
        pytest.skip("clamp let the gradient through at its bound")
    boxes = torch.round(crowd(g, 12) / 8) * 8
    boxes1, boxes2 = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
    gradients = []
    for library in (ops, torchvision.ops):
        value = getattr(library, name)(boxes1, boxes2)
        gradients.append(torch.autograd.grad(value, (boxes1, boxes2), torch.ones_like(value)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@every_form
def test_elementwise_is_the_diagonal(place, name, g):
    for boxes in (crowd(g, 20), tensor(*ROWS["non-finite"], *ROWS["zero-area"])):
        boxes1, boxes2 = boxes.to(place), boxes.flip(0).to(place)
        function = getattr(ops, name)
        assert identical(function(boxes1, boxes2, elementwise=True), function(boxes1, boxes2).diagonal())


@every_form
def test_known_values(place, name):
    a = torch.tensor([[0.0, 0, 4, 4]], dtype=torch.float64, device=place)
    b = torch.tensor([[2.0, 0, 6, 4], [4, 0, 8, 4], [0, 0, 4, 4]], dtype=torch.float64, device=place)
    wanted = {
        "box_iou": [1 / 3, 0.0, 1.0],
        "generalized_box_iou": [1 / 3, 0.0, 1.0],  # the hull is the union
        "distance_box_iou": [1 / 3 - 4 / 52, -16 / 80, 1.0],
        "complete_box_iou": [1 / 3 - 4 / 52, -16 / 80, 1.0],  # squares all
    }
    torch.testing.assert_close(getattr(ops, name)(a, b)[0].tolist(), wanted[name], rtol=0, atol=1e-8)


def test_types(place):
    boxes = torch.tensor([[0.0, 0, 3, 3]], device=place)
    for first, second, result in (
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float64, torch.float64),
        (torch.float32, torch.float64, torch.float64),
    ):
        a, b = boxes.to(first).requires_grad_(), boxes.to(second).requires_grad_()
        value = ops.box_iou(a, b)
        assert value.dtype == result
        assert [t.dtype for t in torch.autograd.grad(value.sum(), (a, b))] == [first, second]


def test_a_result_of_many_pages(g):
    """One whose memory is asked for in huge pages, and a column count that is no multiple of any vector."""
    boxes1, boxes2 = crowd(g, 1201).float(), crowd(g, 1003).float()
    whole = ops.box_iou(boxes1, boxes2)
    assert identical(whole[1100:, 37:], ops.box_iou(boxes1[1100:], boxes2[37:]))
    assert testing.specs()["box_iou"].widens
