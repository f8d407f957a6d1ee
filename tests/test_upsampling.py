"""The ways to make a map larger, on matrices small enough to be checked by hand, and against torch."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from structops import ops
from structops.nn import BedOfNailsUpsample2d, BilinearUpsample2d, MaxUnpool2d, NearestUpsample2d, bilinear_kernel_

SMALL = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]


def matrix(x: torch.Tensor) -> list[list[float]]:
    return x[0, 0].tolist()


def test_two_by_two_to_four_by_four():
    assert matrix(NearestUpsample2d(2)(SMALL)) == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert matrix(BedOfNailsUpsample2d(2)(SMALL)) == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    before = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]
    _, indices = nn.MaxPool2d(2, return_indices=True)(before)
    assert matrix(MaxUnpool2d(2)(SMALL, indices)) == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    sixteenths = (16 * BilinearUpsample2d(1, 2)(SMALL)).detach()
    assert matrix(sixteenths) == [[9, 15, 21, 18], [18, 28, 36, 30], [30, 44, 52, 42], [27, 39, 45, 36]]


@pytest.mark.parametrize("make", [NearestUpsample2d, BedOfNailsUpsample2d, functools.partial(BilinearUpsample2d, 5)])
def test_layout_gradient_and_one_graph(make):
    layer = make((2, 3))
    x = torch.randn(2, 5, 4, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = layer(x)
    assert out.shape == (2, 5, 8, 9)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(make((2, 3)).double(), x.detach()[:1, :, :2, :2].double().requires_grad_())
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), out)
    torch.testing.assert_close(layer(x[0]), out[0])


@pytest.mark.parametrize("factor", [1, 2, 3, 8, (2, 5)])
def test_bilinear_is_interpolation_away_from_the_border(factor):
    x = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    layer = BilinearUpsample2d(3, factor, dtype=torch.float64)
    found = layer(x).detach()
    wanted = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    assert found.shape == wanted.shape
    rows, columns = (f // 2 for f in layer.scale_factor)
    inner = (..., slice(rows, found.shape[2] - rows), slice(columns, found.shape[3] - columns))
    torch.testing.assert_close(found[inner], wanted[inner])


@pytest.mark.parametrize(("kernel", "stride"), [((16, 16), None), ((4, 3), None), ((6, 5), (2, 2)), ((2, 2), (1, 1))])
def test_bilinear_kernel(kernel, stride):
    dense, depthwise, grouped = torch.randn(6, 6, *kernel), torch.randn(6, 1, *kernel), torch.randn(6, 3, *kernel)
    for weight in (dense, depthwise, grouped):
        assert bilinear_kernel_(weight, stride) is weight
    torch.testing.assert_close(depthwise[:, 0], dense.diagonal().permute(2, 0, 1))
    assert int(dense.count_nonzero()) == int(depthwise.count_nonzero())
    assert torch.equal(torch.cat([grouped[:3].diagonal(), grouped[3:].diagonal()], 2), dense.diagonal())
    assert torch.equal(dense, dense.flip(2, 3))
    # A constant map stays constant where no border is near.
    steps = stride or tuple((k + 1) // 2 for k in kernel)
    out = ops.conv_transpose2d(torch.ones(1, 6, 8, 8), depthwise, stride=steps, groups=6)
    inner = out[..., kernel[0] : -kernel[0], kernel[1] : -kernel[1]]
    assert inner.numel() > 0
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_refused():
    with pytest.raises(ValueError, match="as many input as output channels in a group"):
        bilinear_kernel_(torch.zeros(4, 3, 2, 2))
    with pytest.raises(ValueError, match="scale_factor must be at least 1"):
        NearestUpsample2d(0)
    for factor in (1.5, "2", (2,), (1.5, 2)):
        with pytest.raises(ValueError, match="scale_factor must be a whole number, or"):
            NearestUpsample2d(factor)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        bilinear_kernel_(torch.zeros(4, 4, 2, 2), 0)


def test_transposed_convolution_is_the_transposed_matrix():
    """Of every kernel and stride: X a, and X^T b."""
    weight = torch.tensor([1.0, 2.0, 3.0])
    for stride, length in ((1, 6), (2, 7)):
        columns = torch.eye(length)[:, None]  # [length, 1, length]
        x = F.conv1d(columns, weight[None, None], stride=stride)[:, 0].T
        rows = torch.eye(len(x))[:, None, None]
        transposed = ops.conv_transpose2d(rows, weight[None, None, None], stride=(1, stride))[:, 0, 0].T
        assert torch.equal(transposed, x.T)
