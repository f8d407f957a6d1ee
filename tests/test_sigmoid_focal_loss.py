"""Facts of the sigmoid focal loss alone; what every op promises is in test_ops.py."""

import pytest
import torch

from structops import ops
from structops.reference import sigmoid_focal_loss as definition


def one_hot(classes, columns):
    return (classes[..., None] == torch.arange(columns, device=classes.device)).float()


def with_gradient(loss, x):
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_element_is_accurate_by_itself(dtype, gamma):
    """Not only relative to the largest: far logits have losses and gradients of 1e-30, and all their digits."""
    x = torch.linspace(-100, 100, 20_001, dtype=torch.float64).to(dtype).requires_grad_()
    for target in (0.0, 1.0):
        t = torch.full_like(x, target, requires_grad=False)
        found = with_gradient(ops.sigmoid_focal_loss(x, t, gamma=gamma), x)
        wide, t = x.detach().double(), t.double()
        wanted = definition.elements(wide, t, 0.25, gamma), definition.slopes(wide, t, 0.25, gamma)
        for a, b in zip(found, wanted, strict=True):
            normal = b.abs() > (1e-30 if dtype == torch.float32 else 1e-290)
            assert normal.sum() > 5000
            error = ((a.double() - b) / b)[normal].abs().max().item()
            assert error < (2e-6 if dtype == torch.float32 else 5e-15)


def test_torchvision_loses_those_digits():
    """Why the definition is not torchvision's expression, which it equals: 1 - p_t cancels."""
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    x, t = torch.full((1,), 15.0), torch.ones(1)
    wanted = definition.elements(x.double(), t.double(), 0.25, 2.0)
    assert ops.sigmoid_focal_loss(x, t).double().sub(wanted).abs() < 1e-6 * wanted
    assert torchvision.ops.sigmoid_focal_loss(x, t).double().sub(wanted).abs() > 1e-2 * wanted


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_realistic_logits_with_torchvision(reduction, g):
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    x = (2 * torch.randn(3000, 91, generator=g) - 4).requires_grad_()
    t = one_hot(torch.randint(-50, 91, (3000,), generator=g), 91)
    ours = with_gradient(ops.sigmoid_focal_loss(x, t, reduction=reduction), x)
    theirs = with_gradient(torchvision.ops.sigmoid_focal_loss(x, t, reduction=reduction), x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6 * b.abs().max().item())


def test_classes_are_one_hot_targets_to_the_bit(place, g):
    x = torch.randn(40, 7, generator=g).to(place).requires_grad_()
    classes = torch.randint(-1, 8, (40,), generator=g).to(place)
    for gamma in (2.0, 1.5):
        by_class = with_gradient(ops.sigmoid_focal_loss(x, classes, gamma=gamma), x)
        dense = with_gradient(ops.sigmoid_focal_loss(x, one_hot(classes, 7), gamma=gamma), x)
        assert all(map(torch.equal, by_class, dense))


def test_ignored_rows_count_in_the_mean(place):
    x = torch.zeros(2, 3, device=place, requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, torch.tensor([-2, -1], device=place), reduction="mean")
    each = ops.sigmoid_focal_loss(x, torch.tensor([-1, -1], device=place))[1, 0]
    torch.testing.assert_close(loss, each / 2)
    assert not torch.autograd.grad(loss, x)[0][0].any()


def test_an_unknown_reduction():
    with pytest.raises(ValueError, match="reduction must be one of none, mean, sum, got 'max'"):
        ops.sigmoid_focal_loss(torch.zeros(3), torch.zeros(3), reduction="max")


def test_learned_targets(place, g):
    x = torch.randn(3, 4, generator=g).double().to(place).requires_grad_()
    t = torch.rand(3, 4, generator=g).double().to(place).requires_grad_()
    plain = ops.sigmoid_focal_loss(x, t.detach(), 0.3, 1.5, "sum")
    torch.testing.assert_close(ops.sigmoid_focal_loss(x, t, 0.3, 1.5, "sum"), plain)
    torch.autograd.gradcheck(lambda a, b: ops.sigmoid_focal_loss(a, b, 0.3, 1.5), (x, t))
    torch.autograd.gradgradcheck(lambda a, b: ops.sigmoid_focal_loss(a, b, 0.3, 1.5), (x, t))
    with pytest.raises(RuntimeError, match="sigmoid_focal_loss: gamma must be 0 or more"):
        ops.sigmoid_focal_loss(x, t, gamma=-1)


@pytest.mark.parametrize("types", [(torch.float16, torch.float32), (torch.float32, torch.float64)])
def test_targets_of_another_type(types, place, g):
    """The wider type computes, and the result is of the inputs'."""
    x, t = torch.randn(9, generator=g).to(place, types[0]), torch.rand(9, generator=g).to(place, types[1])
    found = ops.sigmoid_focal_loss(x, t)
    assert torch.equal(found, ops.sigmoid_focal_loss(x.to(types[1]), t).to(types[0]))


def test_memory_formats(place, g):
    x = torch.randn(2, 3, 5, 4, generator=g).to(place)
    t = torch.rand(2, 3, 5, 4, generator=g).to(place)
    wanted = ops.sigmoid_focal_loss(x, t)
    last = {"memory_format": torch.channels_last}
    found = ops.sigmoid_focal_loss(x.contiguous(**last).requires_grad_(), t.contiguous(**last))
    assert found.is_contiguous(**last)
    assert torch.equal(found, wanted)
    classes = torch.randint(-2, 5, (2, 3, 5), generator=g).to(place)
    found = ops.sigmoid_focal_loss(x.contiguous(**last), classes)
    assert found.is_contiguous(**last)
    assert torch.equal(found, ops.sigmoid_focal_loss(x, classes))


def test_sums_do_not_depend_on_threads(g):
    x, t = torch.randn(200_003, generator=g), torch.rand(200_003, generator=g)
    before, sums = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            sums.add(ops.sigmoid_focal_loss(x, t, reduction="sum").item())
    finally:
        torch.set_num_threads(before)
    assert len(sums) == 1


def test_a_sum_is_exact_where_float_sums_are_not():
    """Ten million equal losses: added one by one in float32 they would be off by a percent."""
    x, t = torch.zeros(10_000_000), torch.zeros(10_000_000)
    one = ops.sigmoid_focal_loss(x[:1].double(), t[:1].double()).item()
    assert ops.sigmoid_focal_loss(x, t, reduction="sum").item() == pytest.approx(1e7 * one, rel=1e-6)
