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

        def forward_backward(x, rois):
            x = x.requires_grad_()
            out = ops.roi_align(x, rois, *options)
            return out, torch.autograd.grad(out, x, torch.ones_like(out))[0]

        with structops.backend("reference"):
            expected, expected_grad = forward_backward(x.double(), rois.double())
        with structops.backend(backend):
            out, grad = forward_backward(x.to(device), rois.to(device))
        assert distance(out, expected, scale_of(x), dtype)[1] is None
        assert distance(grad, expected_grad, max(1.0, scale_of(expected_grad)), dtype)[1] is None

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
