"""Transposed convolution: a random sweep against torch, threads, and weights that change under it."""

import random
from concurrent.futures import ThreadPoolExecutor

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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_weights_follow_every_change(dtype, layout):
    """The CPU keeps packed weights from the second call on: no write may be missed, of one number or through
    ``.data``, and no other use of the same weights may get panels that are not its own."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 48, 5, 6, generator=g).to(dtype)
    w = torch.nn.Parameter(torch.randn(48, 80, 4, 4, generator=g).to(dtype).contiguous(memory_format=layout))
    grad = torch.randn(2, 80, 10, 12, generator=g).to(dtype)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]

    def check():
        for padding in (1, 0):
            for memory in (torch.contiguous_format, torch.channels_last):
                a = x.contiguous(memory_format=memory)
                found = ops.conv_transpose2d(a, w, stride=2, padding=padding)
                wanted = F.conv_transpose2d(x.double(), w.double(), stride=2, padding=padding)
                torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=50 * tolerance)
        a = x.clone().requires_grad_()
        found = torch.autograd.grad(ops.conv_transpose2d(a, w.detach(), stride=2, padding=1), a, grad)[0]
        wanted = F.conv2d(grad.double(), w.double(), stride=2, padding=1)
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=50 * tolerance)

    def add(tensor, indices):
        for index in indices:
            tensor.view(-1)[index] += 1000

    places = torch.randint(0, w.numel(), (4,), generator=g).tolist()
    stored = w.data.permute(0, 2, 3, 1) if layout == torch.channels_last else w.data
    changes = [lambda index=index: add(stored, [index]) for index in (0, *places, w.numel() - 1)]
    changes.append(lambda: w.data.mul_(-3))
    changes.append(lambda: w.data.copy_(w.data.flip(0)))  # the same numbers in another order
    for change in changes:
        for _ in range(3):  # met, kept, found
            check()
        change()
    check()


def test_kept_weights_have_a_type():
    x, w = torch.randn(1, 64, 5, 5), torch.randn(64, 64, 2, 2).bfloat16()
    for _ in range(3):
        ops.conv_transpose2d(x.bfloat16(), w, stride=2)
    same_bits = w.view(torch.float16)
    wanted = F.conv_transpose2d(x.half().double(), same_bits.double(), stride=2)
    torch.testing.assert_close(ops.conv_transpose2d(x.half(), same_bits, stride=2), wanted.half(), rtol=1e-2, atol=1e-2)


def test_kept_weights_are_found_by_threads():
    x, w = torch.randn(1, 64, 8, 8), torch.randn(64, 64, 4, 4)
    wanted = [F.conv_transpose2d(x, w * k, stride=2, padding=1) for k in range(4)]

    def work(seed: int) -> None:
        choose = random.Random(seed)
        mine = [w * k for k in range(4)]
        for _ in range(50):
            k = choose.randrange(4)
            found = ops.conv_transpose2d(x, mine[k] if choose.random() < 0.5 else shared[k], stride=2, padding=1)
            torch.testing.assert_close(found, wanted[k], rtol=1e-5, atol=1e-4)

    shared = [w * k for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


# Depths, lanes and positions enough for combined taps (on CPU), of which each phase has two in either direction.
COMBINED = {
    "odd": ((2, 65, 15, 13), 70, {"kernel_size": 4, "stride": 2, "padding": 1}),
    "one row of squares": ((1, 64, 1, 200), 64, {"kernel_size": 4, "stride": 2}),
    "stride 1": ((1, 80, 15, 16), 66, {"kernel_size": 2}),
    "stride 4 by 3": ((1, 64, 14, 14), 64, {"kernel_size": (8, 6), "stride": (4, 3), "padding": (2, 1)}),
    "groups": ((1, 128, 14, 14), 128, {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 2}),
    "deep": ((1, 300, 14, 14), 64, {"kernel_size": 4, "stride": 2, "padding": 1}),
    "few channels": ((1, 17, 18, 15), 19, {"kernel_size": 4, "stride": 2, "padding": 1}),
    # Some of these two taps are zeros.
    "3 taps": ((2, 65, 15, 13), 70, {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    "5 by 3 taps": ((1, 24, 16, 21), 20, {"kernel_size": (5, 3), "stride": (3, 2), "padding": (2, 0)}),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", COMBINED)
def test_combined_taps(name, layout):
    shape, channels, options = COMBINED[name]
    torch.manual_seed(0)
    module = torch.nn.ConvTranspose2d(shape[1], channels, **options).to(memory_format=layout)
    x = torch.randn(shape).contiguous(memory_format=layout)
    steps = {k: getattr(module, k) for k in ("stride", "padding", "output_padding", "groups")}
    with torch.no_grad():
        wanted = module.double()(x.double())
        module.float()
        residual = torch.randn(wanted.shape).contiguous(memory_format=layout)
        found = ops.conv_transpose2d(x, module.weight, module.bias, **steps, activation="relu", residual=residual)
    torch.testing.assert_close(found.double(), (wanted + residual).relu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extreme", [float("inf"), float("-inf"), float("nan"), 3e38, -2e25])
@pytest.mark.parametrize("where", ["input", "weight"])
@pytest.mark.parametrize("kernel", [4, 3])
def test_combined_taps_keep_extremes_where_they_belong(kernel, where, extreme):
    """A difference of infinities, or of numbers far apart, must not reach outputs that have no part in them."""
    torch.manual_seed(0)
    tensors = {"input": torch.randn(1, 64, 14, 15), "weight": torch.randn(64, 64, kernel, kernel) / 16}
    tensors[where].view(-1)[1234] = extreme
    found = ops.conv_transpose2d(**tensors, stride=2, padding=1).double()
    wanted = F.conv_transpose2d(*(t.double() for t in tensors.values()), stride=2, padding=1)
    wanted = wanted.float().double()  # beyond the largest float is infinity
    tame = wanted.abs() < 1e3
    torch.testing.assert_close(found[tame], wanted[tame], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[~tame], wanted[~tame], rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(16, 8, 1), (4, 2, 1), (3, 2, 1), (7, 3, 2), (3, 1, 12), (5, 21, 1)]
)
def test_depthwise_rows_of_many_vectors_keep_what_is_not_finite_in_its_place(kernel, stride, dilation, layout):
    """Vectors hold outputs of several phases, some without a tap or a pixel: zero times infinity would be NaN there."""
    g = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(*size, generator=g, dtype=torch.float64) for size in ((1, 3, 4, 70), (3, 1, kernel, kernel))
    )
    x[0, 0, 3, 0], x[0, 2, 2, 41], weight[1, 0, 0, -1] = torch.inf, torch.nan, -torch.inf
    options = {"stride": stride, "padding": kernel // 4, "dilation": dilation, "groups": 3}
    for dtype in DTYPES:
        map_, taps = x.to(dtype).contiguous(memory_format=layout), weight.to(dtype)
        wanted = F.conv_transpose2d(map_.double(), taps.double(), **options)
        found = ops.conv_transpose2d(map_, taps, **options).double()
        torch.testing.assert_close(
            found, wanted, rtol=4 * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps, equal_nan=True
        )
        assert 0 < wanted.isnan().sum() < wanted.numel() / 2


def test_unbatched_input():
    x, w, skip = torch.randn(3, 4, 5), torch.randn(3, 2, 2, 2), torch.randn(2, 8, 10)
    wanted = F.conv_transpose2d(x, w, stride=2) + skip
    torch.testing.assert_close(ops.conv_transpose2d(x, w, stride=2, residual=skip), wanted)
    with pytest.raises(RuntimeError, match=r"residual must be \[C, H, W\] where input is, got 4 dimensions"):
        ops.conv_transpose2d(x, w, stride=2, residual=skip[None])


def test_autocast_lowers_input_and_weight_as_torch_does():
    x, w = torch.randn(1, 4, 5, 5), torch.randn(4, 4, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = ops.conv_transpose2d(x, w, stride=2), F.conv_transpose2d(x, w, stride=2)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs)
