"""Facts of RoI Align alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch

from structops import nn, ops

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("sampling_ratio", [-1, 0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_boxes_that_crash_torchvision(place, sampling_ratio, aligned, g):
    # torchvision 0.29.2 on the CPU segfaults for the first three with sampling_ratio=2, and raises for some otherwise.
    x = torch.randn(1, 2, 8, 8, generator=g).to(place).requires_grad_()
    rows = [[0, NAN, NAN, NAN, NAN], [0, 0, 0, INF, INF], [0, -INF, 0, 4, 4], [0, 6, 6, 1, 1]]
    out = ops.roi_align(x, torch.tensor(rows, device=place), 3, sampling_ratio=sampling_ratio, aligned=aligned)
    assert out[:3].isnan().all()
    assert out[3].isfinite().all()
    out[:3].sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_inverted_box_without_samples_is_zero(place):
    # aligned keeps a negative length, of which adaptive sampling takes no sample
    x = torch.ones(1, 1, 8, 8, device=place)
    assert not ops.roi_align(x, torch.tensor([[0.0, 6, 6, 1, 1]], device=place), 2, aligned=True).any()


def test_constant_map_gives_the_constant(place):
    x = torch.full((1, 3, 20, 20), 2.5, device=place)
    boxes = torch.tensor([[0, 1.3, 2.7, 15.1, 17.9], [0, 3.2, 3.2, 3.3, 3.3]], device=place)
    for sampling_ratio in (-1, 1, 2, 3):
        out = ops.roi_align(x, boxes, (4, 5), sampling_ratio=sampling_ratio, aligned=True)
        torch.testing.assert_close(out, torch.full_like(out, 2.5))


def test_linear_ramp_gives_bin_centres(place):
    columns = torch.arange(32, dtype=torch.float64, device=place)
    x = columns.expand(1, 1, 32, 32)
    out = ops.roi_align(x, torch.tensor([[0, 4.0, 4, 20, 12]], device=place).double(), (2, 4), sampling_ratio=2)
    torch.testing.assert_close(out[0, 0, 0].cpu(), torch.tensor([6.0, 10, 14, 18], dtype=torch.float64))


def test_list_of_boxes_is_boxes_with_an_index(place, g):
    x = torch.randn(3, 4, 9, 9, generator=g).to(place)
    per_image = [torch.rand(n, 4, generator=g).to(place) * 9 for n in (2, 0, 3)]
    index = torch.tensor([0.0, 0, 2, 2, 2], device=place)[:, None]
    assert torch.equal(ops.roi_align(x, per_image, 3), ops.roi_align(x, torch.cat([index, torch.cat(per_image)], 1), 3))


def test_forward_mode_is_refused(place):
    # torch.library's autograd formulas would drop the tangent and return a derivative of zero
    x, boxes = torch.rand(1, 1, 4, 4, device=place), torch.tensor([[0.0, 0, 0, 2, 2]], device=place)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: ops.roi_align(x, boxes, 2), (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        assert ops.roi_align(x, boxes, 2).isfinite().all()
        with pytest.raises(NotImplementedError, match="forward-mode"):
            ops.roi_align(torch.autograd.forward_ad.make_dual(x, x), boxes, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_of_any_type(place, dtype, g):
    x = torch.randn(1, 4, 9, 9, generator=g).to(place)
    boxes = torch.tensor([[0, 1.5, 2, 6.25, 7]], dtype=dtype, device=place)  # exact in every type
    assert torch.equal(ops.roi_align(x, boxes, 3), ops.roi_align(x, boxes.float(), 3))


def test_double_backward_is_the_forward(place, g):
    # The backward is linear in the incoming gradient and the transpose of the forward.
    x = torch.randn(1, 3, 9, 9, generator=g, dtype=torch.float64).to(place).requires_grad_()
    boxes = torch.tensor([[0, 1.0, 1, 7, 6]], dtype=torch.float64, device=place)
    out = ops.roi_align(x, boxes, 3, sampling_ratio=2)
    v = torch.ones_like(out, requires_grad=True)
    (grad,) = torch.autograd.grad(out, x, v, create_graph=True)
    w = torch.randn(x.shape, generator=g, dtype=torch.float64).to(place)
    (again,) = torch.autograd.grad(grad, v, w)
    torch.testing.assert_close(again, ops.roi_align(w, boxes, 3, sampling_ratio=2))


def test_module(place, g):
    module = nn.RoIAlign((3, 4), 0.5, 2, aligned=True)
    x = torch.randn(1, 4, 9, 9, generator=g).to(place)
    boxes = torch.tensor([[0, 1.5, 2, 16.25, 17]], device=place)
    wanted = ops.roi_align(x, boxes, (3, 4), 0.5, 2, True)
    assert torch.equal(module(x, boxes), wanted)
    assert "output_size=(3, 4), spatial_scale=0.5, sampling_ratio=2, aligned=True" in repr(module)
    program = torch.export.export(module, (x, boxes))
    assert torch.equal(program.module()(x, boxes), wanted)


def test_export_with_any_number_of_boxes(place, g):
    rows = torch.export.Dim("rows", min=0)
    x = torch.randn(2, 4, 9, 9, generator=g).to(place)
    boxes = torch.rand(6, 5, generator=g).to(place) * 8
    boxes[:, 0] = 1
    program = torch.export.export(nn.RoIAlign(3, 1.0, 2), (x, boxes), dynamic_shapes=({}, {0: rows}))
    for n in (6, 5, 2):
        assert torch.equal(program.module()(x, boxes[:n]), ops.roi_align(x, boxes[:n], 3, 1.0, 2))
