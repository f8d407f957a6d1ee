"""Transposed convolution: a random sweep against torch, threads, and weights that change under it."""

import random

import pytest
import torch
import torch.nn.functional as F

from structops import ops
from structops.testing.cases.conv_transpose2d import torch_composed
from structops.testing.tolerances import TOLERANCES, distance, scale_of

CONFIGURATIONS = 320
PER_TEST = 20
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _draw(seed: int):
    """A random configuration: arguments in float64, and the rest."""
    choose = random.Random(seed)
    g = torch.Generator().manual_seed(seed)
    groups = choose.choice([1, 1, 1, 2, 3])
    depth, channels = (choose.choice([1, 2, 5, 8, 17]) for _ in range(2))
    stride, dilation, kernel = ([choose.randint(1, 4) for _ in range(2)] for _ in range(3))
    size = [choose.randint(1, 7) for _ in range(2)]
    extra = [choose.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
    padding = []
    for n, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True):
        whole = (n - 1) * s + d * (k - 1) + 1 + e
        padding.append(choose.randint(0, min(3, (whole - 1) // 2)))
    options = {"stride": stride, "padding": padding, "output_padding": extra, "groups": groups, "dilation": dilation}

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    batch = choose.randint(1, 3)
    tensors = {
        "input": normal(batch, depth * groups, *size),
        "weight": normal(depth * groups, channels, *kernel) / depth**0.5,
    }
    for name in ("bias", "scale", "shift"):
        if choose.random() < 0.5:
            tensors[name] = normal(channels * groups)
    if choose.random() < 0.3:
        tensors["residual"] = normal(*F.conv_transpose2d(tensors["input"], tensors["weight"], **options).shape)
    options["activation"] = choose.choice(["none", "relu", "leaky_relu", "gelu", "silu", "sigmoid"])
    options["residual_after_activation"] = choose.random() < 0.5
    layout = choose.choice([torch.contiguous_format, torch.channels_last])
    return tensors, options, DTYPES[seed % len(DTYPES)], layout


@pytest.mark.parametrize("first", range(0, CONFIGURATIONS, PER_TEST))
def test_agrees_with_torch_in_float64(first):
    for seed in range(first, first + PER_TEST):
        tensors, options, dtype, layout = _draw(seed)
        quantised = {name: t.to(dtype) for name, t in tensors.items()}
        ours = {n: t.contiguous(memory_format=layout) if t.dim() == 4 else t.clone() for n, t in quantised.items()}
        theirs = {name: t.double() for name, t in quantised.items()}
        for t in (*ours.values(), *theirs.values()):
            t.requires_grad_()
        found, wanted = ops.conv_transpose2d(**ours, **options), torch_composed(**theirs, **options)
        grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
        pairs = {"result": (found.detach(), wanted.detach())}
        gradients = zip(
            tensors,
            torch.autograd.grad(found, list(ours.values()), grad),
            torch.autograd.grad(wanted, list(theirs.values()), grad.double()),
            strict=True,
        )
        pairs |= {f"gradient of {name}": (a, b) for name, a, b in gradients}
        for name, (a, b) in pairs.items():
            assert a.dtype == dtype
            assert a.shape == b.shape
            problem = distance(a, b, scale_of(b), dtype, TOLERANCES[dtype])[1]
            assert problem is None, f"configuration {seed}, {dtype}, {options}: {name}: {problem}"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_a_bit(dtype, layout):
    x = torch.randn(3, 64, 20, 21, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    w = torch.randn(64, 80, 3, 3, dtype=dtype, requires_grad=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = ops.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, activation="relu")
            found.append([out, *torch.autograd.grad(out.float().sum(), [x, w])])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("activation", ["gelu", "silu", "sigmoid"])
@pytest.mark.parametrize(("channels", "size"), [(17, (33, 65)), (1, (128, 131))])
def test_threads_do_not_change_a_bit_of_other_gradients(activation, channels, size):
    """Whatever torch is asked for: its own sigmoid, and its sum of everything, depend on the number of threads."""
    x, w = torch.randn(2, 3, *size), torch.randn(3, channels, 2, 2)
    vectors = {name: torch.randn(channels) for name in ("bias", "scale", "shift")}
    leaves = [t.requires_grad_() for t in (x, w, *vectors.values())]
    grad = torch.randn(2, channels, 2 * size[0], 2 * size[1])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5, 8):
            torch.set_num_threads(threads)
            out = ops.conv_transpose2d(x, w, stride=2, activation=activation, **vectors)
            found.append(torch.autograd.grad(out, leaves, grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("activation", ["gelu", "silu", "sigmoid"])
def test_second_derivatives_where_an_activation_is_flat(activation):
    at = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    theirs = {"gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid}[activation]
    found = []
    for function in (lambda x: ops.conv_transpose2d(x, torch.ones(1, 1, 1, 1), activation=activation), theirs):
        x = at.view(1, 1, 1, -1).clone().requires_grad_()
        (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        found.append([first.detach(), *torch.autograd.grad(first.sum(), x)])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-7)


def test_a_weight_changed_behind_autograd_is_seen():
    """Whatever is kept of a weight between calls: a write through ``.data`` counts no version."""
    x, w = torch.randn(1, 8, 5, 5), torch.nn.Parameter(torch.randn(8, 8, 2, 2))
    with torch.no_grad():
        ops.conv_transpose2d(x, w, stride=2)
        w.data.mul_(-3)
        torch.testing.assert_close(ops.conv_transpose2d(x, w, stride=2), F.conv_transpose2d(x, w, stride=2))


def test_unbatched_input():
    x, w, skip = torch.randn(3, 4, 5), torch.randn(3, 2, 2, 2), torch.randn(2, 8, 10)
    wanted = F.conv_transpose2d(x, w, stride=2) + skip
    torch.testing.assert_close(ops.conv_transpose2d(x, w, stride=2, residual=skip), wanted)


def test_autocast_lowers_input_and_weight_as_torch_does():
    x, w = torch.randn(1, 4, 5, 5), torch.randn(4, 4, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = ops.conv_transpose2d(x, w, stride=2), F.conv_transpose2d(x, w, stride=2)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs)
