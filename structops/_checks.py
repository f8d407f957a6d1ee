"""Argument checks shared by the ops. Each names the op and the argument, what was given and what is accepted.

They use ``torch._check`` so that symbolic sizes become run-time assertions under ``torch.export``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def require(condition: bool, message: Callable[[], str]) -> None:
    if not isinstance(condition, bool):
        torch._check(condition, message)
    elif not condition:  # raised here: torch.compile takes no message that closes over arguments
        raise RuntimeError(message())


def floating(op: str, name: str, tensor: torch.Tensor) -> None:
    require(
        tensor.dtype in FLOATING,
        lambda: f"{op}: {name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}",
    )


def integer(op: str, name: str, tensor: torch.Tensor) -> None:
    require(tensor.dtype in INTEGER, lambda: f"{op}: {name} must be an integer tensor, got {tensor.dtype}")


def tensor(op: str, name: str, value: object, advice: str = "") -> None:
    """What is no tensor would be refused by the dispatcher, with the whole schema for a message."""
    require(
        isinstance(value, torch.Tensor),
        lambda: f"{op}: {name} must be a tensor, got {type(value).__name__}{advice}",
    )


def image_sizes(op: str, name: str, sizes: Any, device: torch.device) -> torch.Tensor:
    """``[B, 2]`` (height, width), from that or from pairs."""
    if isinstance(sizes, torch.Tensor):
        return sizes
    pairs = list(sizes) if isinstance(sizes, list | tuple) else [sizes]
    require(
        all(isinstance(pair, list | tuple | torch.Size) and len(pair) == 2 for pair in pairs),
        lambda: f"{op}: {name} must be [B, 2], or a pair (height, width) for each image, got {sizes}",
    )
    return torch.tensor([list(pair) for pair in pairs], device=device).view(-1, 2)


def same_device(op: str, name: str, tensor: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    require(
        tensor.device == other.device,
        lambda: f"{op}: {name} must be on the same device as {other_name} ({other.device}), got {tensor.device}",
    )
