"""The layout rule of every op that takes ``[N, C, H, W]``: output follows input."""

from __future__ import annotations

from typing import Any

import torch


def memory_format(x: torch.Tensor) -> torch.memory_format:
    """channels_last or contiguous; the same rule as ``memory_format_of`` in ``csrc/common/tensor.h``."""
    if x.dim() != 4 or x.is_contiguous() or x.shape[1] == 1:
        return torch.contiguous_format
    _, c, h, w = x.stride()
    return torch.channels_last if c == 1 and w >= x.shape[1] and h >= w else torch.contiguous_format


def follow(output: Any, first: torch.Tensor) -> Any:
    """``output``, or each of several, in the memory format that the rule gives for the op's first input."""
    if isinstance(output, tuple | list):
        return type(output)(follow(each, first) for each in output)
    if output.dim() != 4 or first.dim() != 4:
        return output
    return output.contiguous(memory_format=memory_format(first))
