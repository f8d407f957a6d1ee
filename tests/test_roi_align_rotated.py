"""Facts of RoI Align of rotated boxes alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch
from conftest import places
from hypothesis import given
from hypothesis import strategies as st
from test_properties import check_pooling, run

from structops import nn, ops
from structops.reference.roi_align_rotated import rotation

NAN, INF = math.nan, math.inf
# Corners and sides in halves and quarters: exact in every type and computation.
CORNERS = torch.tensor([[0, 1.5, 2.25, 7.5, 8.25], [0, -2.0, 3, 4, 5.5], [0, 6.0, 1, 14, 11], [0, 3.0, 3, 3.5, 3.25]])


def rotated(corners: torch.Tensor, degrees: float) -> torch.Tensor:
    """Boxes ``[K, 5]`` of corners as ``[K, 6]`` of centre, size and angle."""
    index, x1, y1, x2, y2 = corners.double().unbind(1)
    return torch.stack([index, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, torch.full_like(x1, degrees)], 1)


def features(g, place, n=1, c=3, h=9, w=11):
    return torch.randn(n, c, h, w, generator=g, dtype=torch.float64).to(place)


@pytest.mark.parametrize("degrees", [0, 360, -360, 7200, 360.0 * 2**40])
@pytest.mark.parametrize("sampling_ratio", [-1, 2])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("clockwise", [False, True])
def test_whole_turns_are_roi_align(place, degrees, sampling_ratio, aligned, clockwise, g):
    x = features(g, place)
    corners = CORNERS if aligned else CORNERS[:3]  # the minimum size grows from a corner there, from the centre here
    wanted = ops.roi_align(x, corners.to(place).double(), (2, 3), 0.5, sampling_ratio, aligned)
    boxes = rotated(corners, degrees).to(place)
    got = ops.roi_align_rotated(x, boxes, (2, 3), 0.5, sampling_ratio, aligned, clockwise)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1, -2, 5, 4001])
@pytest.mark.parametrize("clockwise", [False, True])
def test_quarter_turns_are_roi_align_on_the_turned_map(place, quarters, clockwise, g):
    """A box turned by 90 degrees counter-clockwise sees what the upright one sees on the map turned clockwise."""
    x = features(g, place)
    boxes = rotated(CORNERS, 90.0 * quarters).to(place)
    got = ops.roi_align_rotated(x, boxes, (2, 3), sampling_ratio=2, clockwise=clockwise)
    turns = quarters if clockwise else -quarters
    turned = torch.rot90(x, turns, (2, 3))
    # Where the centre goes: rot90 by one takes pixel (y, x) to (W - 1 - x, y), so edge coordinates to (W - x, y).
    index, cx, cy, width, height, _ = boxes.unbind(1)
    map_height, map_width = x.shape[2:]
    for _ in range(turns % 4):
        cx, cy, map_height, map_width = cy, map_width - cx, map_width, map_height
    upright = torch.stack([index, cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], 1)
    wanted = ops.roi_align(turned, upright, (2, 3), sampling_ratio=2, aligned=True)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13)


def test_half_a_turn_is_the_crop_upside_down(place, g):
    x, boxes = features(g, place), rotated(CORNERS, 37).to(place)
    other = boxes + torch.tensor([0, 0, 0, 0, 0, 180.0], device=place)
    turned = ops.roi_align_rotated(x, other, (2, 3), sampling_ratio=2).flip(2, 3)
    torch.testing.assert_close(ops.roi_align_rotated(x, boxes, (2, 3), sampling_ratio=2), turned)


def test_clockwise_is_the_negative_angle(place, g):
    x, boxes = features(g, place), rotated(CORNERS, 33).to(place)
    negative = boxes * torch.tensor([1, 1, 1, 1, 1, -1.0], device=place)
    results = [ops.roi_align_rotated(x, b, (2, 3), clockwise=c) for b, c in ((boxes, True), (negative, False))]
    torch.testing.assert_close(*results)


def test_a_plane_gives_its_value_at_bin_centres(place):
    """Bilinear sampling is exact on a plane, and bins are symmetric around their centres: the formulas, spelled out."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    plane = (3 * x - 2 * y + 1).double()[None, None].to(place)
    cx, cy, width, height, degrees = 26.0, 21.0, 16.0, 10.0, 30.0
    box = torch.tensor([[0, cx, cy, width, height, degrees]], device=place).double()
    out = ops.roi_align_rotated(plane, box, (2, 4), sampling_ratio=3)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for i in range(2):
        for j in range(4):
            u, v = ((j + 0.5) / 4 - 0.5) * width, ((i + 0.5) / 2 - 0.5) * height
            at_x, at_y = cx - 0.5 + u * cos + v * sin, cy - 0.5 - u * sin + v * cos
            assert out[0, 0, i, j].item() == pytest.approx(3 * at_x - 2 * at_y + 1, abs=1e-10)


def test_interior_samples_are_those_of_grid_sample(place, g):
    x = features(g, place, h=40, w=50)
    boxes = torch.tensor([[0, 26, 20, 12, 9, 25], [0, 22, 18, 5, 14, -130]], device=place).double()
    out = ops.roi_align_rotated(x, boxes, (3, 4), sampling_ratio=2)
    angle = boxes[:, 5].deg2rad()
    cos, sin, (w, h) = angle.cos(), angle.sin(), (50, 40)
    # Of affine_grid: from [-1, 1] over the crop to [-1, 1] over the map.
    rows = [
        [boxes[:, 3] * cos / w, boxes[:, 4] * sin / w, 2 * boxes[:, 1] / w - 1],
        [-boxes[:, 3] * sin / h, boxes[:, 4] * cos / h, 2 * boxes[:, 2] / h - 1],
    ]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = torch.nn.functional.affine_grid(theta, (2, 3, 6, 8), align_corners=False)
    samples = torch.nn.functional.grid_sample(x.expand(2, -1, -1, -1), grid, align_corners=False)
    torch.testing.assert_close(out, torch.nn.functional.avg_pool2d(samples, 2))


@pytest.mark.parametrize(
    "degrees", [0, 13, 45, 90, 135, 179.5, 180, 225, 270, 300, 359, -30, -45, 405, 1e6, 1e15, -1e30]
)
def test_rotation(degrees):
    cos, sin = rotation(degrees)
    exact = math.fmod(degrees, 360)
    assert cos == pytest.approx(math.cos(math.radians(exact)), abs=1e-15)
    assert sin == pytest.approx(math.sin(math.radians(exact)), abs=1e-15)
    if exact % 90 == 0:
        assert {abs(cos), abs(sin)} == {0.0, 1.0}


def test_boxes_that_are_not_finite(place, g):
    x = features(g, place).requires_grad_()
    rows = torch.tensor([[0, 4.0, 4, 5, 3, 20]] * 7, device=place).double()
    for i, (column, value) in enumerate(((1, NAN), (2, INF), (3, -INF), (4, NAN), (5, NAN), (5, INF))):
        rows[i, column] = value
    out = ops.roi_align_rotated(x, rows, 3)
    assert out[:6].isnan().all()
    assert out[6].isfinite().all()
    (grad,) = torch.autograd.grad(out[:6].sum(), x)
    assert not grad.any()


def test_inverted_box_without_samples_is_zero(place):
    # aligned keeps a negative length, of which adaptive sampling takes no sample
    x = torch.ones(1, 1, 8, 8, device=place)
    assert not ops.roi_align_rotated(x, torch.tensor([[0.0, 4, 4, -3, 3, 10]], device=place), 2).any()


def test_list_of_boxes_is_boxes_with_an_index(place, g):
    x = features(g, place, n=3)
    per_image = [(torch.rand(n, 5, generator=g) * 9).to(place) for n in (2, 0, 3)]
    index = torch.tensor([0.0, 0, 2, 2, 2], device=place)[:, None]
    together = torch.cat([index, torch.cat(per_image)], 1)
    assert torch.equal(ops.roi_align_rotated(x, per_image, 3), ops.roi_align_rotated(x, together, 3))


def test_module(place, g):
    module = nn.RoIAlignRotated((3, 4), 0.5, 2, clockwise=True)
    x = features(g, place)
    boxes = rotated(CORNERS, 20).to(place)
    wanted = ops.roi_align_rotated(x, boxes, (3, 4), 0.5, 2, True, True)
    assert torch.equal(module(x, boxes), wanted)
    assert "output_size=(3, 4), spatial_scale=0.5, sampling_ratio=2, aligned=True, clockwise=True" in repr(module)
    program = torch.export.export(module, (x, boxes))
    assert torch.equal(program.module()(x, boxes), wanted)


coordinate = st.one_of(
    st.floats(-4, 14, width=32),
    st.integers(-6, 30).map(lambda n: n / 2),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, NAN, INF, 1e30, -1e30, 3e38, 2.0**31, -(2.0**31), 1e-30, 1e-45]),
)
angle = st.one_of(st.integers(-24, 24).map(lambda n: 15.0 * n), st.floats(-400, 400, width=32), coordinate)


@pytest.mark.parametrize(("device", "backend"), [p for p in places() if p[1] != "reference"], ids=lambda value: value)
def test_whatever_the_numbers(device, backend):
    @given(
        rows=st.lists(
            st.tuples(st.integers(0, 1), coordinate, coordinate, coordinate, coordinate, angle), min_size=1, max_size=5
        ),
        height=st.integers(1, 9),
        width=st.integers(1, 9),
        pooled=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        scale=st.sampled_from([1.0, 0.25, 1 / 3, 1e-20, 1e20]),
        sampling_ratio=st.integers(-1, 5),
        aligned=st.booleans(),
        clockwise=st.booleans(),
        dtype=st.sampled_from([torch.float32, torch.float64]),
    )
    def property_(rows, height, width, pooled, scale, sampling_ratio, aligned, clockwise, dtype):
        g = torch.Generator().manual_seed(height * 10 + width)
        x = torch.randn(2, 3, height, width, generator=g, dtype=torch.float64).to(dtype)
        boxes = torch.tensor(rows, dtype=dtype)
        options = (pooled, scale, sampling_ratio, aligned, clockwise)
        check_pooling(lambda maps, boxes: ops.roi_align_rotated(*maps, boxes, *options), [x], boxes, device, backend)

    run(property_, device, backend)
