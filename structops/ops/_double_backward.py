"""Double backward of an op by way of its definition: rare enough for torch's own operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def differentiate(
    backward: Callable[..., tuple[torch.Tensor, ...]],
    tensors: Sequence[torch.Tensor],
    options: Sequence[Any],
    grads: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """Gradients of ``tensors``, given those of what ``backward(*tensors, *options)`` returns.

    Args:
        backward: written in operations that torch differentiates.
        grads: ``None``: zero.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: the incoming gradient may itself be made of the boxes, and that way round is not this op's.
        inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        outputs = backward(*inputs, *options)
        given = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if grad is not None]
        if not given:
            return [None] * len(inputs)
        outputs, grads = zip(*given, strict=True)
        return list(torch.autograd.grad(outputs, inputs, grads, create_graph=create_graph, allow_unused=True))
