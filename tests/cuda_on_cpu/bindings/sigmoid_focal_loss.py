"""Sigmoid focal loss by the CUDA kernels: what sigmoid_focal_loss_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases.sigmoid_focal_loss import arguments, classes, hard, logits

from ..emulator import Emulator, poisoned

EXTRA = {
    "sigmoid_focal_loss": (
        Case("two-blocks", lambda g: arguments(logits(g, 16397), hard(g, 16397), reduction="sum")),
        Case("two-blocks-classes", lambda g: arguments(logits(g, 231, 71), classes(g, 231, 71), reduction="mean")),
    )
}


def _law(alpha: float, gamma: float) -> tuple[float, float, float]:
    return (1.0, 1.0, gamma) if alpha < 0 else (alpha, 1 - alpha, gamma)


def _input(inputs: torch.Tensor, targets: torch.Tensor) -> tuple:
    inputs, columns = inputs.contiguous(), inputs.shape[1] if inputs.dim() == 2 else 1
    dense = targets.is_floating_point()
    targets = targets.contiguous() if dense else targets.long().contiguous()
    return inputs, targets if dense else None, None if dense else targets, inputs.numel(), columns


def _divisor(inputs: torch.Tensor, reduction: int) -> float:
    return float(inputs.numel()) if reduction == 1 else 1.0


def sigmoid_focal_loss(
    emulator: Emulator, inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> torch.Tensor:
    suffix = str(inputs.dtype).removeprefix("torch.")
    law, source = _law(alpha, gamma), _input(inputs, targets)
    if reduction == 0:
        loss = poisoned(*inputs.shape, like=inputs)
        emulator.launch(f"sigmoid_focal_loss_{suffix}", *law, *source, loss)
        return loss
    count = emulator.launch("sigmoid_focal_loss_partials", inputs.numel())
    partials, loss = poisoned(count, like=inputs, dtype=torch.float64), poisoned(like=inputs)
    emulator.launch(f"sigmoid_focal_loss_sum_{suffix}", *law, *source, _divisor(inputs, reduction), partials, loss)
    return loss


def sigmoid_focal_loss_backward(
    emulator: Emulator,
    grad: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float,
    gamma: float,
    reduction: int,
) -> torch.Tensor:
    grad_inputs = poisoned(*inputs.shape, like=inputs)
    emulator.launch(
        f"sigmoid_focal_loss_backward_{str(inputs.dtype).removeprefix('torch.')}",
        *(*_law(alpha, gamma), *_input(inputs, targets)),
        *(grad.contiguous(), reduction != 0, _divisor(inputs, reduction), grad_inputs),
    )
    return grad_inputs
