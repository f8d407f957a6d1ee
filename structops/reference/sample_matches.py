"""A balanced random sample of positive and negative anchors, by its definition."""

from __future__ import annotations

import torch

from structops.reference.match_boxes import BELOW_LOW_THRESHOLD


def random_numbers(start: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """The n-th number, 64 bits as an int64, of the SplitMix64 generator with this start (Steele, Lea, Flood, "Fast
    splittable pseudorandom number generators", 2014). Products wrap around."""

    def shifted(z: torch.Tensor, places: int) -> torch.Tensor:
        return (z >> places) & ((1 << (64 - places)) - 1)  # zeros come in, whatever the sign

    z = start + (n + 1) * -0x61C8864680B583EB
    z = (z ^ shifted(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ shifted(z, 27)) * -0x6B2FB644ECCEEE15
    return z ^ shifted(z, 31)


def priorities(seed: torch.Tensor, images: int, anchors: int) -> torch.Tensor:
    """``[images, anchors]`` int64, the leading 30 bits of each anchor's number. An image's generator starts with one of
    the numbers of the generator that the seed starts."""
    image, anchor = (torch.arange(n, device=seed.device) for n in (images, anchors))
    start = random_numbers(random_numbers(seed.reshape(()), torch.zeros_like(image)), image)
    return (random_numbers(start[:, None], anchor) >> 34) & 0x3FFFFFFF


def sample_matches(
    matches: torch.Tensor, num_samples: int, positive_fraction: float, seed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of ``matches [N]`` or ``[B, N]``: indices of the positive (0 or more) and negative (-1) anchors sampled.

    Returns ``(positives, negatives, counts)``, ``[P]``, ``[num_samples]``, ``[2]``, or ``[B, ...]`` each. Those of the
    highest priority are sampled, ties by the lower index, in that order.
    """
    batch = matches if matches.dim() == 2 else matches[None]
    images, anchors = batch.shape
    priority = priorities(seed, images, anchors)

    def highest(members: torch.Tensor, most: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        ranked = torch.where(members, priority, -1).argsort(dim=1, descending=True, stable=True)[:, :width]
        ranked = torch.nn.functional.pad(ranked, (0, width - ranked.shape[1]), value=-1)
        count = torch.minimum(members.sum(1), most)
        return torch.where(torch.arange(width, device=matches.device) < count[:, None], ranked, -1), count

    limit = torch.full((images,), int(num_samples * positive_fraction), device=matches.device)
    positives, positive_count = highest(batch >= 0, limit, int(num_samples * positive_fraction))
    negatives, negative_count = highest(batch == BELOW_LOW_THRESHOLD, num_samples - positive_count, num_samples)
    found = positives, negatives, torch.stack([positive_count, negative_count], 1)
    return found if matches.dim() == 2 else tuple(t[0] for t in found)  # type: ignore[return-value]
