"""Sigmoid focal loss: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

import math

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops._layout import memory_format
from structops.reference import sigmoid_focal_loss as definition

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def sigmoid_focal_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
) -> torch.Tensor:
    """Focal loss, a binary classification of every element that plays down the easy ones.

    Lin et al., "Focal Loss for Dense Object Detection", 2017. With p = sigmoid(input): ``-alpha (1 - p)^gamma log(p)``
    of a positive element, ``-(1 - alpha) p^gamma log(1 - p)`` of a negative one, and what torchvision makes of targets
    in between. Logits are read once by the forward and once by the backward; nothing is kept in between.

    Args:
        inputs: logits of any shape; float16, bfloat16, float32 or float64.
        targets: either floating point, of the shape of ``inputs``, from 0 (negative) to 1 (positive); or integer
            **classes** ``[...]`` for inputs ``[..., C]``, without a one-hot tensor ever being made: element c of a row
            of class c is positive, all others are negative. A row of class -2 is ignored: no loss, no gradient,
            whatever its logits. A row of any other class that is not in [0, C), such as -1 or C, is all negative.
        alpha: weight of positives, from 0 to 1; negatives have 1 - alpha. Negative: both have 1.
        gamma: 0 or more; the larger, the less easy elements count.
        reduction: ``"none"``: a loss for every element; ``"mean"`` of all elements, ignored ones included; ``"sum"``.

    Returns:
        of the shape of ``inputs`` (and their memory format), or a scalar; of their dtype. Inside, all maths is at least
        float32 and accurate relative to each loss by itself, and sums are double and the same to the bit for any number
        of threads. An infinite logit has the limit as its loss and gradient.

    Raises:
        ValueError: for a reduction that there is not.
        RuntimeError: for a wrong shape, dtype or device, alpha above 1, gamma below 0, or a number that is not finite.

    Note:
        Gradients flow to ``inputs``, twice if asked. Where ``targets`` require one too (soft labels that are learned)
        the loss is composed of torch's own operations instead, which takes their time and memory. Where inputs and
        targets differ in type the wider one computes.
    """
    op = "sigmoid_focal_loss"
    if reduction not in REDUCTIONS:
        raise ValueError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    for name, value in (("alpha", alpha), ("gamma", gamma)):
        require(
            isinstance(value, int | float | torch.SymInt | torch.SymFloat),
            lambda name=name, value=value: f"{op}: {name} must be a number, got {type(value).__name__}",  # type: ignore[misc]
        )
    options = (float(alpha), float(gamma), REDUCTIONS[reduction])
    _check_tensors(op, inputs, targets)
    classes = not targets.is_floating_point()
    dtype, layout = inputs.dtype, memory_format(inputs)
    if not classes and targets.dtype != dtype:
        common = torch.promote_types(dtype, targets.dtype)
        inputs, targets = inputs.to(common), targets.to(common)
    # The op takes elements in a row. In the order of memory, where that is channels_last: then nothing is copied.
    swap = layout == torch.channels_last and not classes
    if swap:
        inputs, targets = inputs.permute(0, 2, 3, 1), targets.permute(0, 2, 3, 1)
    shape, rows = inputs.shape, targets.numel()
    inputs = inputs.reshape(rows, shape[-1]) if classes else inputs.reshape(rows)
    learned = targets.requires_grad and torch.is_grad_enabled()
    run = _composed if learned else _sigmoid_focal_loss
    loss = run(inputs, targets.reshape(rows), *options).to(dtype)
    if reduction != "none":
        return loss
    loss = loss.view(shape)
    return loss.permute(0, 3, 1, 2) if swap else loss.contiguous(memory_format=layout)


def _check_tensors(op: str, inputs, targets) -> None:
    for name, tensor in (("inputs", inputs), ("targets", targets)):
        require(
            isinstance(tensor, torch.Tensor),
            lambda name=name, tensor=tensor: f"{op}: {name} must be a tensor, got {type(tensor).__name__}",  # type: ignore[misc]
        )
    _check_types(op, inputs, targets)
    what = "the shape of inputs"
    wanted = inputs.shape
    if not targets.is_floating_point():
        require(inputs.dim() > 0, lambda: f"{op}: inputs must be [..., C] for integer targets, got a scalar")
        what, wanted = "[...], a class for each row of inputs [..., C]", wanted[:-1]
    message = f"{op}: targets must be {what}, got {list(targets.shape)} for inputs {list(inputs.shape)}"
    require(targets.dim() == len(wanted), lambda: message)
    for size, other in zip(targets.shape, wanted, strict=True):
        require(size == other, lambda: message)


def _check_types(op: str, inputs, targets) -> None:
    _checks.floating(op, "inputs", inputs)
    require(
        targets.dtype in (*_checks.FLOATING, *_checks.INTEGER),
        lambda: f"{op}: targets must be floating point or integer classes, got {targets.dtype}",
    )
    _checks.same_device(op, "targets", targets, "inputs", inputs)


def _check(inputs, targets, alpha, gamma, reduction, op: str = "sigmoid_focal_loss") -> None:
    _check_types(op, inputs, targets)
    if targets.is_floating_point():
        require(targets.dtype == inputs.dtype, lambda: f"{op}: targets must have the type of inputs")
        message = f"{op}: targets must have the shape of inputs, both flat"
    else:
        message = f"{op}: targets must be [R], a class for each row of inputs [R, C]"
    require(inputs.dim() == 1 + (not targets.is_floating_point()), lambda: message)
    require(targets.dim() == 1, lambda: message)
    require(targets.shape[0] == inputs.shape[0], lambda: message)
    # Written so that NaN fails too.
    require(alpha <= 1, lambda: f"{op}: alpha must be at most 1 (negative: no weighting), got {alpha}")
    require(0 <= gamma < math.inf, lambda: f"{op}: gamma must be 0 or more and finite, got {gamma}")
    require(reduction in (0, 1, 2), lambda: f"{op}: reduction must be 0 (none), 1 (mean) or 2 (sum), got {reduction}")


def _composed(inputs, targets, alpha, gamma, reduction):
    _check(inputs, targets, alpha, gamma, reduction)
    return definition.sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction)


def _fake(inputs, targets, alpha, gamma, reduction):
    return inputs.new_empty(() if reduction else inputs.shape)


def _setup_context(ctx, inputs, output) -> None:
    logits, targets, *ctx.options = inputs
    ctx.save_for_backward(logits, targets)


def _backward(ops, ctx, grad):
    inputs, targets = ctx.saved_tensors
    return ops.sigmoid_focal_loss_backward(grad, inputs, targets, *ctx.options), None, None, None, None


def _check_backward(grad, inputs, targets, alpha, gamma, reduction) -> None:
    op = "sigmoid_focal_loss_backward"
    _check(inputs, targets, alpha, gamma, reduction, op)
    require(grad.dtype == inputs.dtype, lambda: f"{op}: grad must have the type of inputs")
    _checks.same_device(op, "grad", grad, "inputs", inputs)
    wanted = () if reduction else inputs.shape
    message = f"{op}: grad must have the shape of the loss"
    require(grad.dim() == len(wanted), lambda: message)
    for size, other in zip(grad.shape, wanted, strict=True):
        require(size == other, lambda: message)


def _fake_backward(grad, inputs, targets, alpha, gamma, reduction):
    return inputs.new_empty(inputs.shape)


def _setup_context_backward(ctx, inputs, output) -> None:
    grad, logits, targets, *ctx.options = inputs
    ctx.save_for_backward(grad, logits, targets)


def _double_backward(ops, ctx, grad_grad_inputs):
    # In torch's own operations: it is rare, and they have derivatives of every order.
    grad, inputs, targets = ctx.saved_tensors
    alpha, gamma, reduction = ctx.options
    x, t, counted = definition.prepare(inputs, targets)
    incoming = grad_grad_inputs.to(x.dtype)
    grad_grad = definition.keep(incoming * definition.slopes(x, t, alpha, gamma), counted)
    if reduction:
        grad_grad = grad_grad.mean() if reduction == 1 else grad_grad.sum()
    curvature = definition.keep(incoming * definition.curvatures(x, t, alpha, gamma), counted)
    grad_inputs = definition.spread(grad, x, reduction) * curvature
    return grad_grad.to(grad.dtype), grad_inputs.to(inputs.dtype), None, None, None, None


_sigmoid_focal_loss = Op(
    "sigmoid_focal_loss",
    module="sigmoid_focal_loss",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_sigmoid_focal_loss_backward = Op(
    "sigmoid_focal_loss_backward",
    module="sigmoid_focal_loss",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
