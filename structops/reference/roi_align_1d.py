"""RoI Align along time by its definition, one bin at a time, with no map and no second axis.

The public function runs on :func:`structops.reference.roi_align.roi_align` where the reference is asked for; this one
says what that must amount to, and ``tests/test_roi_align_1d.py`` compares the two.
"""

from __future__ import annotations

import math

import torch

from structops.reference.roi_align import COORDINATE_LIMIT


def bin_mean(sequence: torch.Tensor, start: float, width: float, samples: int) -> torch.Tensor:
    """Mean of ``samples`` evenly spread, linearly interpolated samples of ``sequence [C, T]``: ``[C]``."""
    last = sequence.shape[1] - 1
    numbers = range(samples)
    if samples > 4:  # only those that can be inside: a huge segment of a short sequence has billions outside
        a, b = sorted((edge - start) * samples / width - 0.5 for edge in (-1.0, last + 1.0))
        numbers = range(max(math.floor(a) - 2, 0), min(math.ceil(b) + 3, samples))
    total = sequence.new_zeros(sequence.shape[0])
    for i in numbers:
        at = start + (i + 0.5) * width / samples
        if at < -1 or at > last + 1:
            continue
        at = min(max(at, 0.0), float(last))
        before = math.floor(at)
        fraction = at - before
        value = (1 - fraction) * sequence[:, before]
        total = total + (value + fraction * sequence[:, before + 1] if fraction else value)
    return total / max(samples, 1)


def roi_align_1d(
    input: torch.Tensor,
    segments: torch.Tensor,
    output_size: int,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> torch.Tensor:
    """Crops ``[K, C, output_size]`` of ``input [N, C, T]`` at ``segments [K, 3]`` (batch index, start, end).

    Differentiable by autograd. A segment that is not finite, or whose batch index is out of range, gives NaN.
    """
    sequences = input.to(torch.promote_types(input.dtype, torch.float32))
    offset = 0.5 if aligned else 0.0
    crops = []
    for index, *ends in segments.detach().double().tolist():
        start, end = (v * spatial_scale - offset for v in ends)
        if not (0 <= index < len(sequences) and math.isfinite(start) and math.isfinite(end)):
            crops.append(sequences.new_full((input.shape[1], output_size), math.nan))
            continue
        start, end = (min(max(v, -COORDINATE_LIMIT), COORDINATE_LIMIT) for v in (start, end))
        length = end - start if aligned else max(end - start, 1.0)
        width = length / output_size
        samples = sampling_ratio if sampling_ratio > 0 else max(math.ceil(width), 0)
        bins = [bin_mean(sequences[int(index)], start + p * width, width, samples) for p in range(output_size)]
        crops.append(torch.stack(bins, 1))
    if not crops:
        return input.new_zeros(0, input.shape[1], output_size) + 0 * input.sum()
    return torch.stack(crops).to(input.dtype)
