"""Facts of position-sensitive RoI Align alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch
from conftest import places
from hypothesis import given
from hypothesis import strategies as st
from test_properties import box, check_pooling, run

from structops import nn, ops

NAN, INF = math.nan, math.inf
OPS = [ops.ps_roi_align, ops.ps_roi_pool]


def test_each_bin_reads_its_own_channel(place):
    # A map whose channels are constant: class c and bin (ph, pw) have the value of channel (c * PH + ph) * PW + pw.
    x = torch.arange(3 * 2 * 4.0, device=place).view(1, 24, 1, 1).expand(1, 24, 20, 20)
    boxes = torch.tensor([[0.0, 2, 3, 15, 17]], device=place)
    for function in OPS:
        out = function(x, boxes, (2, 4))
        torch.testing.assert_close(out, torch.arange(24.0, device=place).view(1, 3, 2, 4))


@pytest.mark.parametrize("sampling_ratio", [-1, 1, 2])
def test_one_bin_is_roi_align(place, sampling_ratio, g):
    x = torch.randn(2, 5, 9, 11, generator=g).to(place)
    boxes = torch.tensor([[0, 1.5, 2, 6.25, 7], [1, -3, 4, 20, 5], [1, 7, 7, 2, 3]], device=place)
    wanted = ops.roi_align(x, boxes, 1, 1.0, sampling_ratio, aligned=True)
    torch.testing.assert_close(ops.ps_roi_align(x, boxes, 1, 1.0, sampling_ratio), wanted)


@pytest.mark.parametrize("sampling_ratio", [-1, 2])
def test_boxes_that_break_torchvision(place, sampling_ratio, g):
    # torchvision gives NaN for a box without area where samples are adaptive, and reads anywhere for one not finite
    x = torch.randn(1, 8, 8, 8, generator=g).to(place).requires_grad_()
    rows = [[0, NAN, NAN, NAN, NAN], [0, 0, 0, INF, INF], [0, 3, 3, 3, 3], [0, 6, 6, 1, 1]]
    out = ops.ps_roi_align(x, torch.tensor(rows, device=place), 2, sampling_ratio=sampling_ratio)
    assert out[:2].isnan().all()
    assert out[2:].isfinite().all()
    if sampling_ratio < 0:
        assert not out[2:].any()
    out[:2].sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("function", OPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_of_any_type(place, function, dtype, g):
    x = torch.randn(1, 8, 9, 9, generator=g).to(place)
    boxes = torch.tensor([[0, 1.5, 2, 6.25, 7]], dtype=dtype, device=place)  # exact in every type
    assert torch.equal(function(x, boxes, 2), function(x, boxes.float(), 2))


@pytest.mark.parametrize("function", OPS)
def test_double_backward_is_the_forward(place, function, g):
    # The backward is linear in the incoming gradient and the transpose of the forward.
    x = torch.randn(1, 12, 9, 9, generator=g, dtype=torch.float64).to(place).requires_grad_()
    boxes = torch.tensor([[0, 1.0, 1, 7, 6]], dtype=torch.float64, device=place)
    out = function(x, boxes, 2)
    v = torch.ones_like(out, requires_grad=True)
    (grad,) = torch.autograd.grad(out, x, v, create_graph=True)
    w = torch.randn(x.shape, generator=g, dtype=torch.float64).to(place)
    (again,) = torch.autograd.grad(grad, v, w)
    torch.testing.assert_close(again, function(w, boxes, 2))


def test_modules(place, g):
    x = torch.randn(1, 24, 9, 9, generator=g).to(place)
    boxes = torch.tensor([[0, 1.5, 2, 16.25, 17]], device=place)
    for module, wanted, words in (
        (nn.PSRoIAlign((3, 4), 0.5, 2), ops.ps_roi_align(x, boxes, (3, 4), 0.5, 2), ", sampling_ratio=2"),
        (nn.PSRoIPool((3, 4), 0.5), ops.ps_roi_pool(x, boxes, (3, 4), 0.5), ""),
    ):
        assert torch.equal(module(x, boxes), wanted)
        assert repr(module) == f"{type(module).__name__}(output_size=(3, 4), spatial_scale=0.5{words})"
        program = torch.export.export(module, (x, boxes))
        assert torch.equal(program.module()(x, boxes), wanted)


def test_export_with_any_number_of_boxes(place, g):
    rows = torch.export.Dim("rows", min=0)
    x = torch.randn(2, 9, 9, 9, generator=g).to(place)
    boxes = torch.rand(6, 5, generator=g).to(place) * 8
    boxes[:, 0] = 1
    program = torch.export.export(nn.PSRoIAlign(3, 1.0, 2), (x, boxes), dynamic_shapes=({}, {0: rows}))
    for n in (6, 5, 2):
        assert torch.equal(program.module()(x, boxes[:n]), ops.ps_roi_align(x, boxes[:n], 3, 1.0, 2))


@pytest.mark.parametrize(("device", "backend"), [p for p in places() if p[1] != "reference"], ids=lambda value: value)
def test_any_numbers(device, backend):
    @given(
        rows=st.lists(st.tuples(st.integers(0, 1), box), min_size=1, max_size=6),
        height=st.integers(1, 9),
        width=st.integers(1, 9),
        pooled=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        scale=st.sampled_from([1.0, 0.25, 1 / 3, 1e-20, 1e20]),
        sampling_ratio=st.none() | st.integers(-1, 5),  # None: ps_roi_pool
        dtype=st.sampled_from([torch.float32, torch.float64]),
        channels_last=st.booleans(),
    )
    def property_(rows, height, width, pooled, scale, sampling_ratio, dtype, channels_last):
        g = torch.Generator().manual_seed(height * 10 + width)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = torch.randn(2, 2 * pooled[0] * pooled[1], height, width, generator=g, dtype=torch.float64).to(dtype)
        x = x.contiguous(memory_format=layout)
        rois = torch.tensor([[index, *coordinates] for index, coordinates in rows], dtype=dtype)

        def pool(maps, rois):
            if sampling_ratio is None:
                return ops.ps_roi_pool(*maps, rois, pooled, scale)
            return ops.ps_roi_align(*maps, rois, pooled, scale, sampling_ratio)

        check_pooling(pool, [x], rois, device, backend)

    run(property_, device, backend)
