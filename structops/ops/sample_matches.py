"""Sampling positive and negative anchors for a loss: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require

MAX_SAMPLES = 2048  # kMaxSamples in csrc/sample_matches/sample_matches.h


def sample_matches(
    matches: torch.Tensor,
    num_samples: int = 256,
    positive_fraction: float = 0.5,
    *,
    seed: int | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A random sample of an image's anchors for a loss: a share of positive ones, the rest negative.

    What torchvision's ``BalancedPositiveNegativeSampler(num_samples, positive_fraction)`` draws (Ren et al., "Faster
    R-CNN", 2015, section 3.1.3), without replacement and each anchor of a kind as likely as the others, in results of
    fixed size, without a host sync. The sample is a function of ``matches`` and ``seed`` alone: the same on every
    backend and device.

    Args:
        matches: ``[N]`` or ``[B, N]``, as :func:`match_boxes` returns them: 0 or more is a positive anchor, -1 a
            negative one; what is less is not sampled. Any integer type. torchvision's labels (1 or more, 0, -1) are
            these plus 1: pass ``labels - 1``.
        num_samples: of an image, positive and negative together; 1 to 2048.
        positive_fraction: at most ``int(num_samples * positive_fraction)`` = P are positive; 0 to 1.
        seed: a number of 64 bits, or a tensor of one int64 on the device of ``matches``: one that a captured graph or
            an exported program reads anew in every run. Use another for every step. Images of a batch get different
            samples from one seed.

    Returns:
        ``(positives, negatives, counts)``, int64: indices of the anchors, ``[P]`` and ``[num_samples]`` (``[B, P]`` and
        ``[B, num_samples]``), in random order, so that the first few are a sample too, and then -1; and how many
        indices there are, ``[2]`` (``[B, 2]``). -1 as an index is the last anchor: use ``positives[: counts[0]]``. Too
        few positive anchors are made up for by negative ones; too few negative ones are not.

    Raises:
        RuntimeError: for a wrong rank, dtype or device, or a number out of range.
    """
    _checks.tensor("sample_matches", "matches", matches)
    if not isinstance(seed, torch.Tensor):
        require(
            isinstance(seed, torch.SymInt) or (isinstance(seed, int) and -(2**63) <= seed < 2**63),
            lambda: f"sample_matches: seed must be an integer of 64 bits or a tensor of one, got {seed!r}",
        )
        seed = torch.full((), seed, dtype=torch.int64, device=matches.device)  # written there: a copy would be a sync
    return _sample_matches(
        matches, num_samples, _checks.number("sample_matches", "positive_fraction", positive_fraction), seed
    )


def _check(matches, num_samples, positive_fraction, seed) -> None:
    op = "sample_matches"
    require(matches.dim() in (1, 2), lambda: f"{op}: matches must be [N] or [B, N], got {list(matches.shape)}")
    require(
        matches.dtype in _checks.INTEGER,
        lambda: f"{op}: matches must be an integer tensor, got {matches.dtype}",
    )
    require(
        0 < num_samples <= MAX_SAMPLES,
        lambda: f"{op}: num_samples must be 1 to {MAX_SAMPLES}, got {num_samples}",
    )
    require(
        0 <= positive_fraction <= 1,
        lambda: f"{op}: positive_fraction must be 0 to 1, got {positive_fraction}",
    )
    require(
        seed.numel() == 1 and seed.dtype == torch.int64,
        lambda: f"{op}: seed must be one int64 number, got {list(seed.shape)} of {seed.dtype}",
    )
    _checks.same_device(op, "seed", seed, "matches", matches)


def _fake(matches, num_samples, positive_fraction, seed):
    sizes = (int(num_samples * positive_fraction), num_samples, 2)
    return tuple(matches.new_empty((*matches.shape[:-1], n), dtype=torch.int64) for n in sizes)


_sample_matches = Op("sample_matches", module="sample_matches", check=_check, fake=_fake)
