"""Transposed convolution: public function, fake kernels, checks and autograd formulas.

The linear part is three maps, each linear in both of its arguments: ``conv_transpose2d`` (x, w), ``_grad_input``
(g, w) and ``_grad_weight`` (x, g), for which ``<conv(x, w), g> = <x, grad_input(g, w)> = <w, grad_weight(x, g)>``.
The derivatives of each are the other two, so gradients of every order come from these three kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops._layout import memory_format
from structops.reference.conv_transpose2d import ACTIVATIONS, extent, output_size

# Products of a step (or the number of groups) and a size stay far from 2^63.
LARGEST_STEP, LARGEST_SIZE = 2**20, 2**40
NONE, RELU, LEAKY_RELU, GELU, SILU, SIGMOID = range(len(ACTIVATIONS))
OP = "conv_transpose2d"


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
    residual: torch.Tensor | None = None,
    residual_after_activation: bool = False,
) -> torch.Tensor:
    """Transposed convolution (Zeiler et al., "Deconvolutional Networks", 2010), with what follows it in one kernel:
    ``activation((conv(input) + bias) * scale + shift + residual)``.

    Args:
        input: ``[N, Cin, H, W]``, or ``[Cin, H, W]``; float16, bfloat16, float32 or float64; contiguous or
            channels_last.
        weight: ``[Cin, Cout / groups, kernel height, kernel width]``, of the input's type.
        bias: ``[Cout]``.
        stride: output pixels from one input pixel's kernel to the next; like all steps one number, or (height, width).
        padding: pixels cut off every side of the output.
        output_padding: pixels added below and on the right, fewer than stride or dilation.
        groups: channels are convolved in so many groups by themselves; Cin of them: depthwise.
        dilation: output pixels from one tap of the kernel to the next.
        scale: ``[Cout]``, of a batch norm with its statistics folded in.
        shift: ``[Cout]``, of the same.
        activation: ``"none"``, ``"relu"``, ``"leaky_relu"``, ``"gelu"`` (with erf), ``"silu"`` or ``"sigmoid"``.
        negative_slope: of the leaky ReLU.
        residual: of the output's shape and the input's type: a skip connection.
        residual_after_activation: the residual is added to what the activation gives, and not to what it gets.

    Returns:
        ``[N, Cout, (H - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1, ...]``, of the input's
        type and memory format. Sums, and everything up to the one rounding at the end, are at least float32; bias,
        scale and shift may have any floating type.

    Raises:
        RuntimeError: for a wrong rank, size, dtype or device, a number out of range, or an unknown activation.

    Note:
        Gradients flow to all tensors, of any order. A backward needs what the activation got: it follows from the
        output of ``"none"`` and ``"relu"``; else, and for the gradient of ``scale``, it is computed once more.
        Under autocast, input, weight and residual are cast to the lower type, as torch does.
        On the CPU, weights that come again with few pixels are kept packed, at most 128 MB of them in a process;
        every call looks at all weights, so a change of any kind is seen.
    """
    for name, tensor in (("input", input), ("weight", weight)):
        _checks.tensor(OP, name, tensor)
    if residual is not None:
        _checks.tensor(OP, "residual", residual)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise RuntimeError(f"{OP}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    kind = input.device.type
    input, weight = _autocast(kind, input), _autocast(kind, weight)
    residual = None if residual is None else _autocast(kind, residual)
    unbatched = input.dim() == 3
    if unbatched:
        input = input[None]
        if residual is not None:
            dims = residual.dim()
            require(dims == 3, lambda: f"{OP}: residual must be [C, H, W] where input is, got {dims} dimensions")
            residual = residual[None]
    out = _conv_transpose2d(
        input,
        weight,
        bias,
        scale,
        shift,
        residual,
        _pair("stride", stride),
        _pair("padding", padding),
        _pair("output_padding", output_padding),
        groups,
        _pair("dilation", dilation),
        ACTIVATIONS.index(activation),
        _checks.number(OP, "negative_slope", negative_slope),
        residual_after_activation,
    )
    return out[0] if unbatched else out


def _pair(name: str, value: int | Sequence[int]) -> list[int]:
    whole, several = isinstance(value, _checks.WHOLE_NUMBERS), isinstance(value, Sequence)
    pair: list[Any] = [value] if whole else list(value) if several else []  # type: ignore[arg-type]
    require(
        len(pair) in (1, 2) and all(isinstance(step, _checks.WHOLE_NUMBERS) for step in pair),
        lambda: f"{OP}: {name} must be a whole number or 2 of them, got {value!r}",
    )
    return pair * 2 if len(pair) == 1 else pair


def lowered(kind: str, dtype: torch.dtype) -> torch.dtype:
    """The type that autocast makes of ``dtype``, where it is on; float64 is never lowered."""
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return dtype
    return torch.get_autocast_dtype(kind) if dtype in (torch.float16, torch.bfloat16, torch.float32) else dtype


def _autocast(kind: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(lowered(kind, tensor.dtype))


# Checks; csrc/conv_transpose2d/conv_transpose2d_checks.h has the same.


def _check_steps(op: str, name: str, steps, least: int) -> None:
    require(len(steps) == 2, lambda: f"{op}: {name} must have 2 numbers (height, width), got {len(steps)}")
    for step in steps:
        message = f"{op}: {name} must be from {least} to {LARGEST_STEP}, got {step}"
        require(step >= least, lambda message=message: message)  # type: ignore[misc]
        require(step <= LARGEST_STEP, lambda message=message: message)  # type: ignore[misc]


def _check_map(op: str, name: str, tensor, like, like_name: str) -> None:
    require(tensor.dim() == 4, lambda: f"{op}: {name} must be [N, C, H, W], got {tensor.dim()} dimensions")
    require(tensor.dtype == like.dtype, lambda: f"{op}: {name} must have the type of {like_name}")
    _checks.same_device(op, name, tensor, like_name, like)


def _check_common(op: str, name: str, first, stride, padding, groups, dilation) -> None:
    _checks.floating(op, name, first)
    require(first.dim() == 4, lambda: f"{op}: {name} must be [N, C, H, W], got {first.dim()} dimensions")
    for size in first.shape[2:]:
        require(size >= 1, lambda: f"{op}: {name} must be at least 1 x 1 pixels")
    _check_steps(op, "stride", stride, 1)
    _check_steps(op, "padding", padding, 0)
    _check_steps(op, "dilation", dilation, 1)
    message = f"{op}: groups must be from 1 to {LARGEST_STEP}, got {groups}"
    for holds in (groups >= 1, groups <= LARGEST_STEP):
        require(holds, lambda: message)


def _check_weight(op: str, weight, first, name: str, groups) -> None:
    _check_map(op, "weight", weight, first, name)
    for size in weight.shape[2:]:
        require(size >= 1, lambda: f"{op}: weight must have a kernel of at least 1 x 1")
    channels = weight.shape[0]
    require(channels % groups == 0, lambda: f"{op}: groups must divide the {channels} input channels, got {groups}")


def _check(
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
    activation,
    negative_slope,
    residual_after_activation,
) -> None:
    _check_common(OP, "input", input, stride, padding, groups, dilation)
    _check_weight(OP, weight, input, "input", groups)
    wanted = f"[{input.shape[1]} input channels, output channels / groups, kernel height, kernel width]"
    message = f"{OP}: weight must be {wanted}, got {weight.shape[0]} input channels"
    require(weight.shape[0] == input.shape[1], lambda: message)
    _check_steps(OP, "output_padding", output_padding, 0)
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        message = f"{OP}: output_padding must be smaller than stride or dilation, got {extra}"
        require(extra < max(s, d), lambda message=message: message)  # type: ignore[misc]
    size = output_size(input, weight, stride, padding, output_padding, dilation)
    for out, cut in zip(size, padding, strict=True):
        message = f"{OP}: padding must leave at least one output pixel, got {cut} for an output of {out}"
        require(out >= 1, lambda message=message: message)  # type: ignore[misc]
    channels = weight.shape[1] * groups
    for name, vector in (("bias", bias), ("scale", scale), ("shift", shift)):
        if vector is not None:
            _checks.floating(OP, name, vector)
            message = f"{OP}: {name} must be [{channels}], a number for each output channel"
            require(vector.dim() == 1, lambda message=message: message)  # type: ignore[misc]
            require(vector.shape[0] == channels, lambda message=message: message)  # type: ignore[misc]
            _checks.same_device(OP, name, vector, "input", input)
    if residual is not None:
        _check_map(OP, "residual", residual, input, "input")
        shape = [input.shape[0], channels, *size]
        message = f"{OP}: residual must have the shape of the output, {shape}"
        for found, expected in zip(residual.shape, shape, strict=True):
            require(found == expected, lambda: message)
    last = len(ACTIVATIONS) - 1
    require(0 <= activation <= last, lambda: f"{OP}: activation must be from 0 to {last}, got {activation}")
    message = f"{OP}: negative_slope must be finite, got {negative_slope}"
    require(math.isfinite(negative_slope), lambda: message)


def _check_sizes(op: str, size, out, kernel, stride, padding, dilation) -> None:
    """Whether an output of this size comes from an input of that one: the difference is an output_padding."""
    for n, m, k, s, p, d in zip(size, out, kernel, stride, padding, dilation, strict=True):
        for length in (n, k):
            largest = f"{op}: input and kernel must not be longer than {LARGEST_SIZE}, got {length}"
            require(length <= LARGEST_SIZE, lambda largest=largest: largest)  # type: ignore[misc]
        message = f"{op}: grad must have the size of the output for that input, kernel and stride, got {m} for an input"
        message = f"{message} of {n}"
        extra = m - extent(n, k, s, p, d)
        for holds in (n >= 1, extra >= 0, extra < max(s, d)):
            require(holds, lambda message=message: message)  # type: ignore[misc]


def _check_grad_input(grad, weight, height, width, stride, padding, groups, dilation) -> None:
    op = f"{OP}_grad_input"
    _check_common(op, "grad", grad, stride, padding, groups, dilation)
    _check_weight(op, weight, grad, "grad", groups)
    channels = weight.shape[1] * groups
    require(grad.shape[1] == channels, lambda: f"{op}: grad must have {channels} channels, got {grad.shape[1]}")
    _check_sizes(op, (height, width), grad.shape[2:], weight.shape[2:], stride, padding, dilation)


def _check_grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation) -> None:
    op = f"{OP}_grad_weight"
    _check_common(op, "input", input, stride, padding, groups, dilation)
    _check_map(op, "grad", grad, input, "input")
    require(grad.shape[0] == input.shape[0], lambda: f"{op}: grad must have the batch size of input")
    for channels in (input.shape[1], grad.shape[1]):
        message = f"{op}: groups must divide the channels of input and grad, got {groups}"
        require(channels % groups == 0, lambda message=message: message)  # type: ignore[misc]
    for size in (kernel_height, kernel_width):
        require(size >= 1, lambda: f"{op}: the kernel must be at least 1 x 1")
    kernel = (kernel_height, kernel_width)
    _check_sizes(op, input.shape[2:], grad.shape[2:], kernel, stride, padding, dilation)


# Fake kernels.


def _empty(first, size):
    return first.new_empty(size).to(memory_format=memory_format(first))


def _fake(input, weight, bias, scale, shift, residual, stride, padding, output_padding, groups, dilation, *rest):
    size = output_size(input, weight, stride, padding, output_padding, dilation)
    return _empty(input, (input.shape[0], weight.shape[1] * groups, *size))


def _fake_grad_input(grad, weight, height, width, stride, padding, groups, dilation):
    return _empty(grad, (grad.shape[0], weight.shape[0], height, width))


def _fake_grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation):
    return _empty(input, (input.shape[1], grad.shape[1] // groups, kernel_height, kernel_width))


# Autograd.


class _Linear:
    """The three maps on one backend, for one set of steps."""

    def __init__(self, ops, stride, padding, groups, dilation) -> None:
        self.ops, self.steps = ops, (stride, padding, groups, dilation)

    def conv(self, x, w, size):
        """The transposed convolution whose output has ``size``."""
        stride, padding, groups, dilation = self.steps
        smallest = output_size(x, w, stride, padding, (0, 0), dilation)
        extra = [n - m for n, m in zip(size, smallest, strict=True)]
        no = (None, None, None, None)
        return self.ops.conv_transpose2d(x, w, *no, stride, padding, extra, groups, dilation, NONE, 0.0, False)

    def grad_input(self, g, w, size):
        return self.ops.conv_transpose2d_grad_input(g, w, *size, *self.steps)

    def grad_weight(self, x, g, kernel):
        return self.ops.conv_transpose2d_grad_weight(x, g, *kernel, *self.steps)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, stride, padding, _, groups, dilation, activation, slope, after = inputs
    input, weight, bias, scale, shift, residual = tensors
    ctx.steps, ctx.size = (stride, padding, groups, dilation), output.shape[2:]
    ctx.activation, ctx.slope, ctx.after = activation, slope, after
    ctx.has_residual = residual is not None
    # What the activation got is positive where its output is, unless a residual came later.
    ctx.from_output = activation == RELU and not (after and ctx.has_residual)
    ctx.recomputes = activation != NONE and not ctx.from_output
    kept = residual if ctx.recomputes and not after else None
    ctx.save_for_backward(input, weight, bias, scale, shift, kept, output if ctx.from_output else None)


def _vector(v, dtype):
    return v.to(dtype)[:, None, None]


def _activation_gradient(grad, x, activation: int, slope: float):
    aten = torch.ops.aten  # whose gradients are one pass over memory, and differentiable
    if activation == RELU:
        return aten.threshold_backward(grad, x, 0)
    if activation == LEAKY_RELU:
        return aten.leaky_relu_backward(grad, x, slope, False)
    if activation == GELU:
        density = torch.exp(x * x * -0.5) * (2 * math.pi) ** -0.5
        return grad * (0.5 * (1 + torch.erf(x * 0.5**0.5)) + x * density)
    if activation == SILU:
        s = _sigmoid(x)
        return grad * (s * (1 + x * (1 - s)))
    if activation == SIGMOID:
        return aten.sigmoid_backward(grad, _sigmoid(x))
    return grad


def _sigmoid(x):
    """``torch.sigmoid`` and ``gelu_backward`` round otherwise where a thread's share ends within a vector, ``exp`` and
    ``erf`` do not: gradients would depend on the number of threads. Its own derivative is finite everywhere."""
    positive = x >= 0
    e = torch.exp(torch.where(positive, -x, x))
    return torch.where(positive, 1, e) / (1 + e)


def _backward(ops, ctx, grad):
    input, weight, bias, scale, shift, residual, output = ctx.saved_tensors
    needs_input, needs_weight, needs_bias, needs_scale, needs_shift, needs_residual = ctx.needs_input_grad[:6]
    linear = _Linear(ops, *ctx.steps)
    # Whatever is rounded on the way to the convolutions is kept wide; a ReLU only chooses.
    rounds = scale is not None or ctx.recomputes
    wide = torch.promote_types(input.dtype, torch.float32) if rounds else input.dtype
    x, w, g = input.to(wide), weight.to(wide), grad.to(wide)
    conv = linear.conv(x, w, ctx.size) if ctx.recomputes or needs_scale else None
    if conv is not None and bias is not None:
        conv = conv + _vector(bias, wide)
    if ctx.recomputes:
        z = conv if scale is None else conv * _vector(scale, wide)
        z = z if shift is None else z + _vector(shift, wide)
        z = z if residual is None else z + residual.to(wide)
        g = _activation_gradient(g, z, ctx.activation, ctx.slope)
    elif ctx.from_output:
        g = _activation_gradient(g, output, RELU, 0.0)

    def summed(t, like):
        # One axis at a time: where all at once leave one number, torch splits the sum among the threads that there are.
        for axis in (3, 2, 0):
            t = t.sum(axis, dtype=torch.promote_types(wide, torch.float32))
        return t.to(like.dtype)

    grads = [None] * 6
    if needs_residual:
        grads[5] = grad if ctx.after else g.to(input.dtype)
    if needs_shift:
        grads[4] = summed(g, shift)
    if needs_scale:
        grads[3] = summed(g * conv, scale)
    if scale is not None:
        g = g * _vector(scale, wide)
    if needs_bias:
        grads[2] = summed(g, bias)
    if needs_weight:
        grads[1] = linear.grad_weight(x, g, weight.shape[2:]).to(weight.dtype)
    if needs_input:
        grads[0] = linear.grad_input(g, w, input.shape[2:]).to(input.dtype)
    return *grads, *[None] * 8


def _setup_context_grad_input(ctx, inputs, output) -> None:
    grad, weight, _, _, *ctx.steps = inputs
    ctx.save_for_backward(grad, weight)


def _backward_of_grad_input(ops, ctx, incoming):
    grad, weight = ctx.saved_tensors
    linear = _Linear(ops, *ctx.steps)
    needs_grad, needs_weight = ctx.needs_input_grad[:2]
    to_grad = linear.conv(incoming, weight, grad.shape[2:]) if needs_grad else None
    to_weight = linear.grad_weight(incoming, grad, weight.shape[2:]) if needs_weight else None
    return to_grad, to_weight, *[None] * 6


def _setup_context_grad_weight(ctx, inputs, output) -> None:
    input, grad, _, _, *ctx.steps = inputs
    ctx.save_for_backward(input, grad)


def _backward_of_grad_weight(ops, ctx, incoming):
    input, grad = ctx.saved_tensors
    linear = _Linear(ops, *ctx.steps)
    needs_input, needs_grad = ctx.needs_input_grad[:2]
    to_input = linear.grad_input(grad, incoming, input.shape[2:]) if needs_input else None
    to_grad = linear.conv(input, incoming, grad.shape[2:]) if needs_grad else None
    return to_input, to_grad, *[None] * 6


_conv_transpose2d = Op(
    OP,
    module=OP,
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_conv_transpose2d_grad_input = Op(
    f"{OP}_grad_input",
    module=OP,
    check=_check_grad_input,
    fake=_fake_grad_input,
    backward=_backward_of_grad_input,
    setup_context=_setup_context_grad_input,
)
_conv_transpose2d_grad_weight = Op(
    f"{OP}_grad_weight",
    module=OP,
    check=_check_grad_weight,
    fake=_fake_grad_weight,
    backward=_backward_of_grad_weight,
    setup_context=_setup_context_grad_weight,
)
