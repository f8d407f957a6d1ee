"""A balanced random sample of positive and negative anchors: a random priority for each, the best of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._top_k import ScoreMap, top_k

_BLOCK = 1024


@triton.jit
def _random(start, n):
    """The n-th number of SplitMix64, as structops.reference.sample_matches has it: int64, products wrap around."""
    z = start + (n + 1) * -0x61C8864680B583EB
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


@triton.jit(do_not_specialize=["anchors", "blocks"])
def sample_priorities_kernel(
    matches,  # [B, N]
    seed,  # [1] int64
    priorities,  # [B, 2, N] float32, written: of positive anchors, of negative ones; 0 for those of another kind
    image_stride,
    anchor_stride,
    anchors,
    blocks,
    BLOCK: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = i < anchors
    match = tl.load(matches + image * image_stride + i * anchor_stride, mask=exists, other=-2).to(tl.int64)
    start = _random(_random(tl.load(seed), image * 0), image)
    number = (_random(start, i) >> 34) & 0x3FFFFFFF
    # Positive floats have the order of their bits. This adds the smallest exponent: none is subnormal.
    priority = (number + 0x00800000).to(tl.int32).to(tl.float32, bitcast=True)
    row = priorities + image * 2 * anchors + i
    tl.store(row, tl.where(match >= 0, priority, 0.0), mask=exists)
    tl.store(row + anchors, tl.where(match == -1, priority, 0.0), mask=exists)


def _priorities_launch(matches: torch.Tensor, seed: torch.Tensor) -> tuple[torch.Tensor, Launch]:
    images, anchors = matches.shape
    priorities = torch.empty((images, 2, anchors), dtype=torch.float32, device=matches.device)
    blocks = triton.cdiv(anchors, _BLOCK)
    arguments = {
        "matches": matches,
        "seed": seed,
        "priorities": priorities,
        "image_stride": matches.stride(0),
        "anchor_stride": matches.stride(1),
        "anchors": anchors,
        "blocks": blocks,
        "BLOCK": _BLOCK,
    }
    return priorities, Launch(sample_priorities_kernel, (images * blocks,), arguments, {"num_warps": 4})


def sample_matches(
    matches: torch.Tensor, num_samples: int, positive_fraction: float, seed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of the positive and negative anchors sampled of ``matches [N]`` or ``[B, N]``, and their counts."""
    batch = matches if matches.dim() == 2 else matches[None]
    images, anchors = batch.shape
    priorities, launch = _priorities_launch(batch, seed)
    run(matches.device, [launch])
    each = ScoreMap(priorities, (1, 1, anchors), (0, 0, 1), images, 2 * anchors, classes=2, class_stride=anchors)
    best = top_k([each], num_samples, above=0.0)[:, 0].long()  # [B, 2, num_samples], -1 past the last
    positives = best[:, 0, : int(num_samples * positive_fraction)].contiguous()
    positive_count = (positives >= 0).sum(1)
    place = torch.arange(num_samples, device=matches.device)
    negatives = torch.where(place < num_samples - positive_count[:, None], best[:, 1], -1)
    counts = torch.stack([positive_count, (negatives >= 0).sum(1)], 1)
    found = positives, negatives, counts
    return found if matches.dim() == 2 else tuple(t[0] for t in found)  # type: ignore[return-value]


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    seed = torch.empty(1, dtype=torch.int64, device="meta")
    for dtype in (torch.int64, torch.int32):
        matches = torch.empty((2, 268_569), dtype=dtype, device="meta")
        # The other targets are compiled for one name alone.
        name = "bfloat16" if dtype == torch.int64 else str(dtype)[6:]
        yield name, _priorities_launch(matches, seed)[1]
