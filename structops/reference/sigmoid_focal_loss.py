"""Sigmoid focal loss by its definition, in torch's own operations, none of which cancels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: the class of a row without loss
IGNORED = -2


def prepare(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Logits and targets of one shape, in float32 at least, and which elements count (``None``: all).

    Integer ``targets [R]`` are the classes of the rows of ``inputs [R, C]``: 1 at the class, if there is such a column.
    """
    compute = torch.promote_types(inputs.dtype, torch.float32)
    x = inputs.to(compute)
    if targets.is_floating_point():
        return x, targets.to(compute), None
    columns = torch.arange(inputs.shape[1], device=inputs.device)
    classes = targets.long()[:, None]
    return x, (classes == columns).to(compute), (classes != IGNORED).expand(inputs.shape)


def weight_of(t: torch.Tensor, alpha: float) -> torch.Tensor:
    """Of elements with targets ``t``; ones without weighting (alpha < 0)."""
    return alpha * t + (1 - alpha) * (1 - t) if alpha >= 0 else t + (1 - t)


def _share(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``weight * value``, and 0 where the weight is 0, though the value be infinite."""
    return torch.where(weight == 0, 0, weight * value)


def parts(x: torch.Tensor, t: torch.Tensor, alpha: float) -> tuple[torch.Tensor, ...]:
    """p, 1 - p, weight, hard = 1 - p_t, and the cross entropy, for logits ``x`` and targets ``t``."""
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    # softplus(x) is -logsigmoid(-x); torch's own softplus is cut at 20
    cross = _share(1 - t, -F.logsigmoid(-x)) + _share(t, -F.logsigmoid(x))
    return p, q, weight_of(t, alpha), p * (1 - t) + q * t, cross


def elements(x: torch.Tensor, t: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """The loss of every element."""
    _, _, weight, hard, cross = parts(x, t, alpha)
    return weight * cross * hard**gamma


def _finite_parts(x: torch.Tensor, t: torch.Tensor, alpha: float) -> tuple[torch.Tensor, ...]:
    """For derivatives: p, q, weight, hard, cross, p - t, and the derivative of hard over hard.

    Logits are kept finite, since the cross entropy is multiplied by p q, which is then zero. Where hard vanishes so
    does its derivative.
    """
    largest = torch.finfo(x.dtype).max
    p, q, weight, hard, cross = parts(x.clamp(-largest, largest), t, alpha)
    ratio = torch.where(hard == 0, 0, (1 - 2 * t) * (p * q) / torch.where(hard == 0, 1, hard))
    return p, q, weight, hard, cross, p * (1 - t) - q * t, ratio


def slopes(x: torch.Tensor, t: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """The first derivative of :func:`elements` by ``x``."""
    _, _, weight, hard, cross, cross_slope, ratio = _finite_parts(x, t, alpha)
    return weight * hard**gamma * (cross_slope + gamma * ratio * cross)


def curvatures(x: torch.Tensor, t: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """The second derivative of :func:`elements` by ``x``."""
    p, q, weight, hard, cross, cross_slope, ratio = _finite_parts(x, t, alpha)
    bend = (gamma - 1) * ratio * ratio + ratio * (q - p)  # the second derivative of hard^gamma, over gamma hard^gamma
    return weight * hard**gamma * (gamma * (2 * ratio * cross_slope + bend * cross) + p * q)


def keep(values: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """``values``, and 0 for the elements that do not count."""
    return values if counted is None else torch.where(counted, values, 0)


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> torch.Tensor:
    """Focal loss of logits ``inputs [N]`` and ``targets [N]``, or of ``inputs [R, C]`` and classes ``targets [R]``.

    Args:
        alpha: weight of positives, 1 - alpha that of negatives; negative: no weighting.
        gamma: the exponent of the modulating factor.
        reduction: 0: of the shape of inputs; 1: their mean; 2: their sum.
    """
    x, t, counted = prepare(inputs, targets)
    loss = keep(elements(x, t, alpha, gamma), counted)
    if reduction:
        loss = loss.mean() if reduction == 1 else loss.sum()
    return loss.to(inputs.dtype)


def spread(grad: torch.Tensor, x: torch.Tensor, reduction: int) -> torch.Tensor:
    """The gradient of the loss as that of each element's, in the type and shape of ``x``."""
    each = grad.to(x.dtype)
    if reduction:
        each = (each / x.numel() if reduction == 1 else each).expand(x.shape)
    return each


def sigmoid_focal_loss_backward(
    grad: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> torch.Tensor:
    """Gradient of :func:`sigmoid_focal_loss` with respect to its inputs, given that of its result."""
    x, t, counted = prepare(inputs, targets)
    slope = keep(slopes(x, t, alpha, gamma), counted)
    return (spread(grad, x, reduction) * slope).to(inputs.dtype)
