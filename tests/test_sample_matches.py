"""Facts of sample_matches alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch

from structops import ops
from structops.testing.cases.sample_matches import drawn_matches


def deviation(counts, draws, chosen):
    """How far counts of anchors, of which each of many draws chose a few at random, are from even: in standard
    deviations of chi-square. Without replacement counts vary less than if drawn independently."""
    n = len(counts)
    expected = draws * chosen / n
    chi_square = ((counts - expected) ** 2 / expected).sum() * (n - 1) / (n - chosen)
    return float((chi_square - (n - 1)) / math.sqrt(2 * (n - 1)))


def tally(indices, n):
    return torch.bincount(indices.flatten(), minlength=n).double()


@pytest.mark.parametrize("by", ["image", "seed"])
def test_every_anchor_is_as_likely(by):
    n, draws, chosen = 120, 4000, 24
    matches = torch.arange(2 * n) % 2 - 1  # negative where even, positive where odd
    if by == "image":  # of one batch
        found = ops.sample_matches(matches.expand(draws, -1), 2 * chosen, seed=5)
        positives, negatives, counts = found
    else:  # one number after the other
        each = [ops.sample_matches(matches, 2 * chosen, seed=s) for s in range(draws)]
        positives, negatives, counts = (torch.stack(t) for t in zip(*each, strict=True))
    assert counts.unique(dim=0).tolist() == [[chosen, chosen]]
    negatives = negatives[:, :chosen]
    of_kind = torch.div(torch.stack([negatives, positives]), 2, rounding_mode="floor")
    for kind in of_kind:
        assert abs(deviation(tally(kind, n), draws, chosen)) < 4
        assert abs(deviation(tally(kind[:, 0], n), draws, 1)) < 4  # in random order: the first is a sample too
        # Neighbours are no more often together than others: n pairs, each with chance c (c - 1) / (n (n - 1)).
        mask = torch.zeros(draws, n, dtype=torch.bool).scatter_(1, kind, True)
        together = (mask & mask.roll(1, 1)).sum()
        expected = draws * chosen * (chosen - 1) / (n - 1)
        assert abs(together - expected) < 4 * math.sqrt(expected)
    # Kinds are independent: the same place among both is chosen together as often as chance has it.
    both = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(*of_kind, strict=True))
    expected = draws * chosen * chosen / n
    assert abs(both - expected) < 4 * math.sqrt(expected)


def test_what_is_sampled_is_of_its_kind(place, g):
    matches = drawn_matches(g, (3, 90)).to(place)
    positives, negatives, counts = ops.sample_matches(matches, 30, 0.4, seed=11)
    for row, chosen, rest, (p, n) in zip(matches, positives, negatives, counts.tolist(), strict=True):
        assert p == min(12, int((row >= 0).sum()))
        assert n == min(30 - p, int((row == -1).sum()))
        assert (row[chosen[:p]] >= 0).all()
        assert (row[rest[:n]] == -1).all()
        assert (chosen[p:] == -1).all()
        assert (rest[n:] == -1).all()
        assert len(chosen[:p].unique()) == p
        assert len(rest[:n].unique()) == n


def test_as_many_as_torchvision(g):
    utils = pytest.importorskip("torchvision.models.detection._utils", reason="torchvision is not installed")
    for positive, negative in ((0.0, 1.0), (0.02, 0.9), (0.5, 0.1), (0.9, 0.0)):
        for samples, fraction in ((16, 0.5), (64, 0.25), (128, 0.3)):
            matches = drawn_matches(g, (4, 200), positive, negative)
            sampler = utils.BalancedPositiveNegativeSampler(samples, fraction)
            masks = sampler([*(matches + 1)])
            wanted = [[int(mask[i].sum()) for mask in masks] for i in range(4)]
            assert ops.sample_matches(matches, samples, fraction, seed=1)[2].tolist() == wanted


def test_another_seed_another_sample(place, g):
    matches = drawn_matches(g, (2, 60)).to(place)
    matches[1] = matches[0]
    first = ops.sample_matches(matches, 16, seed=3)
    again = ops.sample_matches(matches, 16, seed=torch.tensor([3], device=place))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], ops.sample_matches(matches, 16, seed=4)[1])
    assert not torch.equal(first[1][0], first[1][1]), "images share their random numbers"


def test_any_number_of_threads(g):
    matches = drawn_matches(g, (3, 200_000), 0.001, 0.9)  # enough for three; each image is one's
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.sample_matches(matches, seed=9))
    finally:
        torch.set_num_threads(before)
    for more in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], more, strict=True))


def test_a_program_reads_the_seed_anew(g):
    matches = drawn_matches(g, (2, 60))

    class Sample(torch.nn.Module):
        def forward(self, matches, seed):
            return ops.sample_matches(matches, 16, seed=seed)

    program = torch.export.export(Sample(), (matches, torch.tensor(1))).module()
    for seed in (1, 2, -5):
        wanted = ops.sample_matches(matches, 16, seed=seed)
        assert all(torch.equal(a, b) for a, b in zip(program(matches, torch.tensor(seed)), wanted, strict=True))


def test_numbers_are_those_of_the_paper():
    """The published SplitMix64, which other languages have too, started at 1234567."""
    from structops.reference.sample_matches import random_numbers

    found = random_numbers(torch.tensor(1234567), torch.arange(5)).tolist()
    assert [n % 2**64 for n in found] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
