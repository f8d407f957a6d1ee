"""Facts of RoI Pool alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch
from conftest import places
from hypothesis import given, settings
from hypothesis import strategies as st

import structops
from structops import nn, ops, testing
from structops.testing.checks import identical
from structops.testing.recording import Recorder
from structops.testing.run import LAYOUTS, Target, arguments_for
from structops.testing.tolerances import distance, scale_of

NAN, INF = math.nan, math.inf
SPEC = testing.specs()["roi_pool"]


def call(x, boxes, size, scale=1.0, with_argmax=True):
    """The dispatcher op of the backend in force: output and argmax."""
    namespace = {"native": "structops"}.get(structops.current_backend(), f"structops_{structops.current_backend()}")
    return getattr(torch.ops, namespace).roi_pool(x, boxes, scale, *size, with_argmax)


def test_by_hand(place):
    x = torch.arange(20.0, device=place).view(1, 1, 4, 5)
    # Corners 0.5 and 2.4 become 1 and 2: two columns; rows 0 to 3, of which each of three bins meets two.
    out, argmax = call(x, torch.tensor([[0, 0.5, 0, 2.4, 3]], device=place), (3, 2))
    assert out[0, 0].tolist() == [[6, 7], [11, 12], [16, 17]]
    assert argmax[0, 0].tolist() == [[6, 7], [11, 12], [16, 17]]
    assert argmax.dtype == torch.int32


def test_bins_end_with_the_box(place):
    # 7 * (29 / 7.0) is 30 rounded up: a bin computed in floating point would take a pixel outside the box.
    x = torch.zeros(1, 1, 1, 40, device=place)
    x[..., 29:] = 1
    assert not ops.roi_pool(x, torch.tensor([[0.0, 0, 0, 28, 0]], device=place), (1, 7)).any()


def test_halves_are_rounded_away_from_zero(place):
    x = torch.arange(10.0, device=place).expand(1, 1, 10, 10)
    starts = torch.tensor([-0.5, 0.5, 1.5, 2.5, 2.4999998], device=place)
    zero = torch.zeros_like(starts)
    out, argmax = call(x, torch.stack([zero, starts, zero, starts, zero], 1), (1, 1))
    assert out.flatten().tolist() == [0, 1, 2, 3, 2]
    assert argmax.flatten().tolist() == [-1, 1, 2, 3, 2]  # the first lies at -1, outside


def test_equal_values_go_to_the_first(place):
    x = torch.ones(2, 20, 9, 40, device=place, dtype=torch.float64, requires_grad=True)
    box = torch.tensor([[1.0, 3, 2, 36, 7]], device=place).double()
    for layout in (torch.contiguous_format, torch.channels_last):
        argmax = call(x.detach().contiguous(memory_format=layout), box, (1, 1))[1]
        assert (argmax == 2 * 40 + 3).all()
    (grad,) = torch.autograd.grad(ops.roi_pool(x, box, 1).sum(), x)
    assert grad.nonzero().tolist() == [[1, c, 2, 3] for c in range(20)]


def test_nan_wins_and_the_first_has_the_gradient(place):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.zeros(1, 3, 6, 30, device=place).contiguous(memory_format=layout)
        x[0, :, 2, 4], x[0, :, 1, 20], x[0, :, 3, 3] = NAN, NAN, INF
        out, argmax = call(x, torch.tensor([[0.0, 0, 0, 29, 5]], device=place), (1, 1))
        assert out.isnan().all()
        assert (argmax == 30 + 20).all()


def test_boxes_that_are_not_finite(place, g):
    x = torch.randn(1, 2, 8, 8, generator=g).to(place).requires_grad_()
    rows = [[0, NAN, NAN, NAN, NAN], [0, 0, 0, INF, INF], [0, -INF, 0, 4, 4], [0, 6, 6, 1, 1]]
    boxes = torch.tensor(rows, device=place)
    out = ops.roi_pool(x, boxes, 3)
    assert out[:3].isnan().all()
    assert (out[3] == x[0, :, 6, 6, None, None]).all()  # inverted: one pixel
    assert (call(x.detach(), boxes, (3, 3))[1][:3] == -1).all()
    out[:3].sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_backward_ignores_what_argmax_cannot_mean(place, layout, g):
    # Whatever a caller passes, nothing is written outside the map; a box that is not finite adds nothing.
    name = structops.current_backend()
    backward = getattr(torch.ops, "structops" if name == "native" else f"structops_{name}").roi_pool_backward
    grad = torch.ones(3, 5, 2, 2, device=place).contiguous(memory_format=layout)
    argmax = torch.tensor([-1, 72, 2**31 - 1, -(2**31)], device=place, dtype=torch.int32).view(2, 2)
    argmax = argmax.expand(3, 5, 2, 2).contiguous(memory_format=layout).clone()
    argmax[2] = 7
    boxes = torch.tensor([[0.0, 0, 0, 8, 7], [0, 0, 0, 8, 7], [0, NAN, 0, 8, 7]], device=place)
    assert not backward(grad, boxes, argmax, 1.0, 2, 2, 1, 5, 8, 9).any()
    argmax[0, :, 0, 0] = 13
    found = backward(grad, boxes, argmax, 1.0, 2, 2, 1, 5, 8, 9)
    assert found[0, :, 1, 4].eq(1).all()
    assert found.sum() == 5


@pytest.mark.parametrize("place", [p for p in places() if p[1] != "reference"], ids="-".join)
def test_without_a_gradient_to_come(place):
    """The forward then leaves argmax out, by another kernel, which must give the same output."""
    device, name = place
    cases = SPEC.tagged("quick") if testing.interpreted(name, device) else SPEC.cases
    dtypes = (torch.float32,) if testing.interpreted(name, device) else SPEC.dtypes
    layouts = LAYOUTS[:2] if testing.interpreted(name, device) else LAYOUTS
    for case in cases:
        for dtype in dtypes:
            for layout in layouts:
                arguments = arguments_for(SPEC, case, Target(name, device, dtype, layout))
                with structops.backend(name):
                    training = ops.roi_pool(**arguments)
                    with torch.no_grad():
                        inference = ops.roi_pool(**arguments)
                assert identical(training.detach(), inference), (case.name, dtype, layout)
                assert training.stride() == inference.stride()


def test_argmax_only_when_a_gradient_can_follow(place, g):
    x = torch.randn(1, 2, 6, 6, generator=g).to(place)
    box = torch.tensor([[0.0, 1, 1, 4, 4]], device=place)

    def asked(x) -> list[bool]:
        with Recorder() as recorder:
            ops.roi_pool(x, box, 2)
        return [arguments[-1] for _, arguments, _ in recorder.own]

    assert asked(x) == [False]
    assert asked(x.clone().requires_grad_()) == [True]
    with torch.no_grad():
        assert asked(x.clone().requires_grad_()) == [False]


def test_gradient_in_another_layout(place, g):
    # A box head flattens the output, so the gradient comes back contiguous whatever the layout of the features.
    x = torch.randn(1, 19, 12, 14, generator=g).to(place)
    boxes = torch.tensor([[0.0, 1, 1, 9, 8], [0, 3, 2, 13, 11]], device=place)
    grad = torch.randn(2, 19, 3, 3, generator=g).to(place)
    found = []
    for input_layout in (torch.contiguous_format, torch.channels_last):
        for grad_layout in (torch.contiguous_format, torch.channels_last):
            y = x.clone(memory_format=input_layout).requires_grad_()
            out = ops.roi_pool(y, boxes, 3)
            found.append(torch.autograd.grad(out, y, grad.contiguous(memory_format=grad_layout))[0])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_double_backward_reads_the_maxima(place, g):
    x = torch.randn(1, 3, 9, 9, generator=g, dtype=torch.float64).to(place).requires_grad_()
    boxes = torch.tensor([[0, 1.0, 1, 7, 6], [0, NAN, 1, 7, 6]], dtype=torch.float64, device=place)
    out = ops.roi_pool(x, boxes, 3)
    v = torch.ones_like(out, requires_grad=True)
    (grad,) = torch.autograd.grad(out, x, v, create_graph=True)
    (again,) = torch.autograd.grad(grad, v, x.detach())
    assert torch.equal(again[0], out.detach()[0])
    assert not again[1].any()


def test_list_of_boxes_is_boxes_with_an_index(place, g):
    x = torch.randn(3, 4, 9, 9, generator=g).to(place)
    per_image = [torch.rand(n, 4, generator=g).to(place) * 9 for n in (2, 0, 3)]
    index = torch.tensor([0.0, 0, 2, 2, 2], device=place)[:, None]
    assert torch.equal(ops.roi_pool(x, per_image, 3), ops.roi_pool(x, torch.cat([index, torch.cat(per_image)], 1), 3))


def test_module(place, g):
    module = nn.RoIPool((3, 4), 0.5)
    x = torch.randn(1, 4, 9, 9, generator=g).to(place)
    boxes = torch.tensor([[0, 1.5, 2, 16.25, 17]], device=place)
    wanted = ops.roi_pool(x, boxes, (3, 4), 0.5)
    assert torch.equal(module(x, boxes), wanted)
    assert "output_size=(3, 4), spatial_scale=0.5" in repr(module)
    program = torch.export.export(module, (x, boxes))
    assert torch.equal(program.module()(x, boxes), wanted)


coordinate = st.one_of(
    st.floats(-4, 14, width=32),
    st.integers(-6, 30).map(lambda n: n / 2),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e30, -1e30, 3e38, 2.0**31, -(2.0**31), 1e-30, 0.49999997, -0.5]),
)


@pytest.mark.parametrize("place", [p for p in places() if p[1] != "reference"], ids="-".join)
def test_whatever_the_numbers(place):
    device, name = place

    @given(
        rows=st.lists(st.tuples(st.integers(0, 1), *[coordinate] * 4), min_size=1, max_size=6),
        height=st.integers(1, 9),
        width=st.integers(1, 40),
        channels=st.integers(1, 19),
        pooled=st.tuples(st.integers(1, 4), st.integers(1, 9)),
        scale=st.sampled_from([1.0, 0.25, 1 / 3, 1e-20, 1e20]),
        values=st.sampled_from(["normal", "ties", "nan"]),
        dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
        layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    )
    def property_(rows, height, width, channels, pooled, scale, values, dtype, layout):
        g = torch.Generator().manual_seed(height * 10 + width)
        x = torch.randn(2, channels, height, width, generator=g, dtype=torch.float64)
        if values == "ties":
            x = x.round()
        if values == "nan":
            x[torch.rand(x.shape, generator=g) < 0.1] = NAN
        x = x.to(dtype)
        boxes = torch.promote_types(dtype, torch.float32)
        rois = torch.tensor(rows, dtype=boxes)
        with structops.backend("reference"):
            expected, where = call(x, rois, pooled, scale)
        with structops.backend(name):
            moved = x.to(device, memory_format=layout)
            output, argmax = call(moved, rois.to(device), pooled, scale)
            moved = moved.detach().requires_grad_()
            out = ops.roi_pool(moved, rois.to(device), pooled, scale)
            (grad,) = torch.autograd.grad(out, moved, torch.ones_like(out))
        assert identical(output.cpu(), expected)
        assert torch.equal(argmax.cpu(), where)
        wide = torch.ones(where.shape, dtype=torch.float64)
        with structops.backend("reference"):
            wanted = torch.ops.structops_reference.roi_pool_backward(wide, rois, where, scale, *pooled, *x.shape)
        assert distance(grad, wanted, max(1.0, scale_of(wanted)), dtype)[1] is None

    options = settings(
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=6 if testing.interpreted(name, device) else 200,
    )
    options(property_)()
