"""Sigmoid focal loss in Triton: one pass over memory in each direction, sums in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run


def _block(dtype: torch.dtype) -> int:
    """Elements of a program: 8 a thread (2 of doubles, whose polynomials need the registers).

    Fixed, since the order of a sum's additions depends on it.
    """
    return 256 if dtype == torch.float64 else 1024


_IGNORED: tl.constexpr = tl.constexpr(-2)


@triton.jit
def _exp(x):
    """exp(x) for x <= 0. In float32 the exponent is split first: the hardware's exp2 is as exact as its argument."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    near = tl.where(x < -88.0, -88.0, x)  # keeps NaN
    n = tl.floor(near * 1.4426950408889634 + 0.5)
    result = tl.exp((near - n * 0.693359375) + n * 2.12194440054690583e-4) * tl.exp2(n)
    return tl.where(x < -88.0, 0.0, result)


@triton.jit
def _twice_atanh(s, TERMS: tl.constexpr):
    square = s * s
    total = tl.full(s.shape, 2.0 / (2 * TERMS + 1), s.dtype)
    for k in tl.static_range(TERMS):
        total = total * square + 2.0 / (2 * (TERMS - k) - 1)
    return s * total


@triton.jit
def _log1p(e):
    """log(1 + e) for e in [0, 1], exact where e is small."""
    return _twice_atanh(e / (2.0 + e), 17 if e.dtype == tl.float64 else 8)


@triton.jit
def _power(x, gamma_bits):
    """x^gamma for x in [0, 1]; see csrc/common/cpu/vector_math.h for the float32 way."""
    gamma = gamma_bits.to(tl.int64).to(tl.float64, bitcast=True)
    of_zero = tl.where(gamma == 0.0, 1.0, 0.0).to(x.dtype)
    if x.dtype == tl.float64:
        result = tl.exp(gamma * tl.log(tl.where(x == 0.0, 1.0, x)))
    else:
        whole = gamma.to(tl.float32)
        high = (whole.to(tl.int32, bitcast=True) & -2048).to(tl.float32, bitcast=True)
        bits = x.to(tl.int32, bitcast=True)
        exponent = (bits - 0x3F3504F3) >> 23
        f = (bits - (exponent << 23)).to(tl.float32, bitcast=True)
        k = exponent.to(tl.float32)
        head = high * k
        tail = (whole - high) * k + whole * (_twice_atanh((f - 1.0) / (f + 1.0), 5) * 1.4426950408889634)
        n = tl.floor(head + tail + 0.5)
        result = tl.exp2((head - n) + tail) * tl.exp2(n)
    return tl.where(x == 0.0, of_zero, result)


@triton.jit
def _targets(targets, offset, mask, columns, dtype: tl.constexpr, CLASSES: tl.constexpr):
    """Targets of elements; -2 where the row is ignored."""
    if CLASSES:
        row = offset // columns
        of_row = tl.load(targets + row, mask=mask, other=0)
        here = tl.where(of_row == (offset - row * columns), 1.0, 0.0)
        return tl.where(of_row == _IGNORED, -2.0, here).to(dtype)
    return tl.load(targets + offset, mask=mask, other=0.0).to(dtype)


@triton.jit
def _parts(x, t, size, alpha_bits):
    """The parts that loss and slope share: see csrc/sigmoid_focal_loss/focal_math.h."""
    alpha = alpha_bits.to(tl.int64).to(tl.float64, bitcast=True)
    positive = tl.where(alpha < 0.0, 1.0, alpha).to(x.dtype)
    negative = tl.where(alpha < 0.0, 1.0, 1.0 - alpha).to(x.dtype)
    e = _exp(-size)
    near = 1.0 / (1.0 + e)
    far = e * near
    p = tl.where(x < 0.0, far, near)
    q = tl.where(x < 0.0, near, far)
    rest = 1.0 - t
    share = tl.where(x < 0.0, t, rest)
    cross = tl.where(share == 0.0, 0.0, share * size) + _log1p(e)
    return p, q, rest, positive * t + negative * rest, p * rest + q * t, cross


@triton.jit
def _loss(x, t, alpha_bits, gamma_bits, SQUARE: tl.constexpr, CLASSES: tl.constexpr):
    _p, _q, _rest, weight, hard, cross = _parts(x, t, tl.abs(x), alpha_bits)
    modulation = hard * hard if SQUARE else _power(hard, gamma_bits)
    loss = weight * cross * modulation
    return tl.where(t < 0.0, 0.0, loss) if CLASSES else loss


@triton.jit
def _slope(x, t, alpha_bits, gamma_bits, SQUARE: tl.constexpr, CLASSES: tl.constexpr):
    size = tl.abs(x)
    largest = 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
    size = tl.where(size > largest, largest, size)  # finite: it is multiplied by p q, which is then zero
    p, q, rest, weight, hard, cross = _parts(x, t, size, alpha_bits)
    gamma = gamma_bits.to(tl.int64).to(tl.float64, bitcast=True).to(x.dtype)
    cross_slope = p * rest - q * t
    hard_slope = gamma * (rest - t) * (p * q)
    if SQUARE:
        slope = weight * hard * (hard * cross_slope + hard_slope * cross)
    else:
        ratio = tl.where(hard == 0.0, 0.0, hard_slope / tl.where(hard == 0.0, 1.0, hard))
        slope = weight * _power(hard, gamma_bits) * (cross_slope + ratio * cross)
    return tl.where(t < 0.0, 0.0, slope) if CLASSES else slope


@triton.jit
def _offsets(count, BLOCK: tl.constexpr, LARGE: tl.constexpr):
    pid = tl.program_id(0)
    offset = (pid.to(tl.int64) if LARGE else pid) * BLOCK + tl.arange(0, BLOCK)
    return offset, offset < count


@triton.jit(do_not_specialize=["alpha_bits", "gamma_bits"])
def sigmoid_focal_loss_kernel(
    inputs,  # [count]
    targets,  # [count], or int64 [count / columns]
    out,  # [count] losses, or, where reduced, [programs] double sums
    alpha_bits,
    gamma_bits,
    count,
    columns,
    SQUARE: tl.constexpr,  # gamma is 2
    CLASSES: tl.constexpr,
    REDUCED: tl.constexpr,
    LARGE: tl.constexpr,  # offsets need 64 bits
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset, mask = _offsets(count, BLOCK, LARGE)
    x = tl.load(inputs + offset, mask=mask, other=0.0).to(COMPUTE)
    t = _targets(targets, offset, mask, columns, COMPUTE, CLASSES)
    loss = _loss(x, t, alpha_bits, gamma_bits, SQUARE, CLASSES)
    if REDUCED:
        tl.store(out + tl.program_id(0), tl.sum(tl.where(mask, loss, 0.0).to(tl.float64), axis=0))
    else:
        tl.store(out + offset, loss.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count", "divisor_bits"])
def sigmoid_focal_loss_total_kernel(
    partials,  # [count] doubles
    out,  # [1]
    count,
    divisor_bits,
    BLOCK: tl.constexpr,
):
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, count, BLOCK):
        offset = first + tl.arange(0, BLOCK)
        total += tl.load(partials + offset, mask=offset < count, other=0.0)
    divisor = divisor_bits.to(tl.int64).to(tl.float64, bitcast=True)
    tl.store(out, (tl.sum(total, axis=0) / divisor).to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["alpha_bits", "gamma_bits", "share_bits"])
def sigmoid_focal_loss_backward_kernel(
    grad,  # [count], or, where reduced, [1]
    inputs,
    targets,
    grad_inputs,  # [count]
    alpha_bits,
    gamma_bits,
    share_bits,  # of the one gradient that each element has
    count,
    columns,
    SQUARE: tl.constexpr,
    CLASSES: tl.constexpr,
    REDUCED: tl.constexpr,
    LARGE: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset, mask = _offsets(count, BLOCK, LARGE)
    x = tl.load(inputs + offset, mask=mask, other=0.0).to(COMPUTE)
    t = _targets(targets, offset, mask, columns, COMPUTE, CLASSES)
    slope = _slope(x, t, alpha_bits, gamma_bits, SQUARE, CLASSES)
    if REDUCED:
        share = share_bits.to(tl.int64).to(tl.float64, bitcast=True)
        result = slope * (tl.load(grad).to(tl.float64) * share).to(COMPUTE)
    else:
        result = slope * tl.load(grad + offset, mask=mask, other=0.0).to(COMPUTE)
    if CLASSES:  # also where the gradient is no number
        result = tl.where(t < 0.0, 0.0, result)
    tl.store(grad_inputs + offset, result.to(grad_inputs.dtype.element_ty), mask=mask)


def _arguments(inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int) -> dict:
    classes = not targets.is_floating_point()
    block = _block(inputs.dtype)
    return {
        "inputs": inputs.contiguous(),
        "targets": (targets.long() if classes else targets).contiguous(),
        "alpha_bits": double_bits(alpha),
        "gamma_bits": double_bits(gamma),
        "count": inputs.numel(),
        "columns": inputs.shape[1] if classes else 1,
        "SQUARE": gamma == 2,
        "CLASSES": classes,
        "REDUCED": reduction != 0,
        "LARGE": inputs.numel() > 2**31 - block,
        "COMPUTE": tl.float64 if inputs.dtype == torch.float64 else tl.float32,
        "BLOCK": block,
    }


def _divisor(inputs: torch.Tensor, reduction: int) -> float:
    return float(inputs.numel()) if reduction == 1 else 1.0


def _forward(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> tuple[torch.Tensor, list[Launch]]:
    out = inputs.new_empty(() if reduction else inputs.shape)
    programs = triton.cdiv(inputs.numel(), _block(inputs.dtype))
    written = inputs.new_empty(programs, dtype=torch.float64) if reduction else out
    arguments = _arguments(inputs, targets, alpha, gamma, reduction) | {"out": written}
    launches = [Launch(sigmoid_focal_loss_kernel, (programs,), arguments, {"num_warps": 4}, vector_loads=True)]
    if reduction:
        arguments = {
            "partials": written,
            "out": out,
            "count": programs,
            "divisor_bits": double_bits(_divisor(inputs, reduction)),
            "BLOCK": 1024,
        }
        launches.append(Launch(sigmoid_focal_loss_total_kernel, (1,), arguments, {"num_warps": 4}))
    return out, launches


def _backward(
    grad: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> tuple[torch.Tensor, list[Launch]]:
    grad_inputs = inputs.new_empty(inputs.shape)
    divisor = _divisor(inputs, reduction)
    arguments = _arguments(inputs, targets, alpha, gamma, reduction) | {
        "grad": grad.contiguous(),
        "grad_inputs": grad_inputs,
        "share_bits": double_bits(1 / divisor if divisor else 0.0),
    }
    grid = (triton.cdiv(inputs.numel(), _block(inputs.dtype)),)
    kernel = sigmoid_focal_loss_backward_kernel
    return grad_inputs, [Launch(kernel, grid, arguments, {"num_warps": 4}, vector_loads=True)]


def sigmoid_focal_loss(
    inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> torch.Tensor:
    """Focal loss of logits ``inputs [N]`` and ``targets [N]``, or of ``inputs [R, C]`` and classes ``targets [R]``."""
    out, launches = _forward(inputs, targets, alpha, gamma, reduction)
    run(inputs.device, launches)
    return out


def sigmoid_focal_loss_backward(
    grad: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float, reduction: int
) -> torch.Tensor:
    """Gradient of :func:`sigmoid_focal_loss` with respect to its inputs, given that of its result."""
    grad_inputs, launches = _backward(grad, inputs, targets, alpha, gamma, reduction)
    run(inputs.device, launches)
    return grad_inputs


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        inputs = torch.empty((8192, 90), dtype=dtype, device="meta")
        classes = torch.empty(8192, dtype=torch.int64, device="meta")
        flat = inputs.view(-1)
        for kind, *pair in (("dense", flat, flat), ("classes", inputs, classes)):
            if dtype == torch.float16 and kind == "classes":
                continue  # differs from bfloat16 in conversions only
            for gamma, reduction in ((2.0, 0), (1.5, 2)):
                name = f"{str(dtype)[6:]}-{kind}-gamma={gamma:g}"
                out, launches = _forward(*pair, 0.25, gamma, reduction)
                yield from ((f"forward-{name}", launch) for launch in launches)
                _, launches = _backward(out, *pair, 0.25, gamma, reduction)
                yield from ((f"backward-{name}", launch) for launch in launches)
