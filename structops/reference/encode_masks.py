"""Run-length encoding of masks in COCO's compressed form, by its definition."""

from __future__ import annotations

import torch


def run_lengths(mask: torch.Tensor) -> torch.Tensor:
    """Lengths of the runs of ``mask [H, W]``, down its columns: of pixels that are 0, then of others, and so on."""
    pixels = mask.t().reshape(-1)
    before = torch.cat([pixels.new_zeros(1), pixels[:-1]])[: len(pixels)]
    ends = (pixels != before).nonzero()[:, 0]
    ends = torch.cat([ends, ends.new_full((1,), len(pixels))])
    return torch.diff(ends, prepend=ends.new_zeros(1))


def run_text(lengths: torch.Tensor) -> torch.Tensor:
    """The characters that stand for runs, uint8.

    A number is a run's length, from the fourth on less that of the run before the one before. It is written five bits a
    character, the lowest first, as many as its two's complement needs, with bit 5 set in all but the last, plus 48.
    """
    numbers = lengths.clone()
    numbers[3:] -= lengths[1:-2]
    shifts = torch.arange(0, 35, 5, device=lengths.device)
    rest = numbers[:, None] >> shifts
    done = (rest >= -16) & (rest < 16)  # what is left fits in this character
    written = torch.cat([torch.ones_like(done[:, :1]), ~done[:, :-1]], 1)
    return ((rest & 31) + 32 * ~done + 48)[written].to(torch.uint8)


def encode_masks(masks: torch.Tensor, width: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Of ``masks [K, H, W]``, or eight pixels of a row to a byte: the texts one after another ``[n]`` and where each
    begins and the last ends ``[K + 1]``."""
    if width is not None:
        bits = masks[..., None] >> torch.arange(8, device=masks.device, dtype=torch.uint8) & 1
        masks = bits.flatten(-2)[..., :width]
    texts = [run_text(run_lengths(mask != 0)) for mask in masks]
    ends = torch.tensor([0, *map(len, texts)], device=masks.device).cumsum(0)
    return torch.cat([masks.new_empty(0, dtype=torch.uint8), *texts]), ends
