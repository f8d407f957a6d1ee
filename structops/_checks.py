"""Argument checks shared by the ops. Each names the op and the argument, what was given and what is accepted.

They use ``torch._check`` so that symbolic sizes become run-time assertions under ``torch.export``.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
#: results that are asked for, beyond any use: a slip of the keyboard should not be an allocator's affair
MOST_RESULTS = 2**31
_NUMBERS = (numbers.Real, torch.SymFloat, torch.SymInt)  # those of numpy too
WHOLE_NUMBERS = (numbers.Integral, torch.SymInt)


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


def number(op: str, name: str, value: Any) -> float:
    require(isinstance(value, _NUMBERS), lambda: f"{op}: {name} must be a number, got {type(value).__name__}")
    given = float(value)
    require(given == given, lambda: f"{op}: {name} must be a number, got NaN")
    return given


def divisors(op: str, name: str, values: Any) -> list[float]:
    """Four of them, one for each coordinate."""
    # Finite in words that torch.compile knows for symbolic numbers too: inf - inf is NaN.
    sound = isinstance(values, list | tuple) and len(values) == 4 and all(isinstance(v, _NUMBERS) for v in values)
    given = [float(v) for v in values] if sound else []
    require(
        sound and all(v != 0 and v - v == 0 for v in given),
        lambda: f"{op}: {name} must be 4 finite numbers other than 0, got {values}",
    )
    return given


def count_of_results(op: str, name: str, value: Any) -> None:
    def message() -> str:
        return f"{op}: {name} must be a whole number from 0 to {MOST_RESULTS - 1}, got {value}"

    require(isinstance(value, WHOLE_NUMBERS), message)
    require(value >= 0, message)
    require(value < MOST_RESULTS, message)


def image_sizes(op: str, name: str, sizes: Any, device: torch.device) -> torch.Tensor:
    """``[B, 2]`` (height, width), from that or from pairs."""
    if isinstance(sizes, torch.Tensor):
        return sizes
    pairs = list(sizes) if isinstance(sizes, list | tuple) else [sizes]
    require(
        all(isinstance(pair, list | tuple | torch.Size) and len(pair) == 2 for pair in pairs),
        lambda: f"{op}: {name} must be [B, 2], or a pair (height, width) for each image, got {sizes}",
    )
    for side in (side for pair in pairs for side in pair):
        image_side(op, name, side)
    return torch.tensor([list(pair) for pair in pairs], device=device).view(-1, 2)


def image_side(op: str, name: str, side: Any) -> None:
    def message() -> str:
        return f"{op}: {name} must be numbers of 0 or more, got {side}"

    require(isinstance(side, _NUMBERS), message)
    require(side >= 0, message)


def same_device(op: str, name: str, tensor: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    require(
        tensor.device == other.device,
        lambda: f"{op}: {name} must be on the same device as {other_name} ({other.device}), got {tensor.device}",
    )
