"""Whatever the numbers, every backend does what the definition says: boxes and scores drawn by hypothesis."""

import math

import pytest
import torch
from conftest import places
from hypothesis import given, settings
from hypothesis import strategies as st

import structops
from structops import ops, testing
from structops.testing.checks import identical
from structops.testing.tolerances import distance, scale_of

# Near the map, at every magnitude that float32 has, on halves and integers, and the special values.
coordinate = st.one_of(
    st.floats(-4, 14, width=32),
    st.integers(-6, 30).map(lambda n: n / 2),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, 2.0**31, -(2.0**31), 1e-30, 1e-45]),
)
box = st.tuples(coordinate, coordinate, coordinate, coordinate)
score = st.one_of(
    st.integers(0, 4).map(float), st.floats(width=32), st.sampled_from([math.nan, 0.0, -0.0, math.inf, -math.inf])
)
device_and_backend = pytest.mark.parametrize(
    ("device", "backend"), [p for p in places() if p[1] != "reference"], ids=lambda value: value
)


def examples(device: str, backend: str) -> int:
    return 6 if testing.interpreted(backend, device) else 200


def run(property_, device: str, backend: str) -> None:
    """Checks a property: the same examples each time, so that a failure can be had again."""
    options = settings(deadline=None, derandomize=True, database=None, max_examples=examples(device, backend))
    options(property_)()


def check_pooling(function, maps: list[torch.Tensor], rois: torch.Tensor, device: str, backend: str) -> None:
    """The output and the maps' gradients of ``function(maps, rois)`` are those of the definition in float64."""
    dtype = maps[0].dtype

    def forward_backward(maps, rois):
        maps = [m.requires_grad_() for m in maps]
        out = function(maps, rois)
        return out, torch.autograd.grad(out, maps, torch.ones_like(out))

    with structops.backend("reference"):
        expected, expected_grads = forward_backward([m.double() for m in maps], rois.double())
    with structops.backend(backend):
        out, grads = forward_backward([m.to(device) for m in maps], rois.to(device))
    assert distance(out, expected, scale_of(*maps), dtype)[1] is None
    for grad, wanted in zip(grads, expected_grads, strict=True):
        assert distance(grad, wanted, max(1.0, scale_of(wanted)), dtype)[1] is None


@device_and_backend
def test_roi_align(device, backend):
    @given(
        rows=st.lists(st.tuples(st.integers(0, 1), box), min_size=1, max_size=6),
        height=st.integers(1, 9),
        width=st.integers(1, 9),
        pooled=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        scale=st.sampled_from([1.0, 0.25, 1 / 3, 1e-20, 1e20]),
        sampling_ratio=st.integers(-1, 5),
        aligned=st.booleans(),
        dtype=st.sampled_from([torch.float32, torch.float64]),
    )
    def property_(rows, height, width, pooled, scale, sampling_ratio, aligned, dtype):
        g = torch.Generator().manual_seed(height * 10 + width)
        x = torch.randn(2, 3, height, width, generator=g, dtype=torch.float64).to(dtype)
        rois = torch.tensor([[index, *coordinates] for index, coordinates in rows], dtype=dtype)
        options = (pooled, scale, sampling_ratio, aligned)
        check_pooling(lambda maps, rois: ops.roi_align(*maps, rois, *options), [x], rois, device, backend)

    run(property_, device, backend)


@device_and_backend
def test_nms(device, backend):
    @given(
        rows=st.lists(st.tuples(box, score, st.integers(-1, 1)), max_size=40),
        threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0, 2.0]),
        dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    )
    def property_(rows, threshold, dtype):
        boxes = torch.tensor([r[0] for r in rows], dtype=torch.float64).reshape(-1, 4).to(dtype)
        scores = torch.tensor([r[1] for r in rows], dtype=torch.float64).to(dtype)
        idxs = torch.tensor([r[2] for r in rows], dtype=torch.int64)
        for function, arguments in ((ops.nms, (boxes, scores)), (ops.batched_nms, (boxes, scores, idxs))):
            with structops.backend("reference"):
                expected = function(*arguments, threshold)
            with structops.backend(backend):
                found = function(*(t.to(device) for t in arguments), threshold).cpu()
            assert identical(found, expected), (found, expected)

    run(property_, device, backend)
