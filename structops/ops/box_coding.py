"""Boxes to and from a head's regression outputs: public functions, fake kernels, checks and autograd formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops._double_backward import differentiate
from structops.reference import box_coding as definition
from structops.reference.box_coding import CODINGS

#: What the public functions take; FCOS's distances are two codings below.
PUBLIC_CODINGS = ("deltas", "distances", "cells")

#: Of an exponent: a predicted box is at most 62.5 times its anchor.
LOG_SCALE_CLIP = math.log(1000.0 / 16)


def decode_boxes(
    deltas: torch.Tensor,
    anchors: torch.Tensor,
    *,
    coding: str = "deltas",
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    bbox_xform_clip: float = LOG_SCALE_CLIP,
    normalize_by_size: bool = True,
    stride: float = 1.0,
) -> torch.Tensor:
    """Boxes from a detector head's regression outputs and their anchors (or proposals).

    Args:
        deltas: ``[..., 4]``, or ``[..., 4 * C]`` with four numbers for each of C classes; float16, bfloat16, float32 or
            float64. Halves are decoded in float32.
        anchors: ``[..., 4]`` (x1, y1, x2, y2), whose leading dimensions broadcast to those of ``deltas``: ``[N, 4]``
            for deltas ``[N, 4]``, ``[B, N, 4]`` and ``[N, 4 * C]``; ``[N, 1, 4]`` for ``[N, C, 4]``.
        coding: what the numbers mean.

            - ``"deltas"``, R-CNN (Girshick et al., 2014) and all after it: the centre's offset in units of the anchor's
              size and the logarithms of the sizes' ratios. SSD's "variances" (0.1, 0.1, 0.2, 0.2) are the same with
              weights (10, 10, 5, 5).
            - ``"distances"``, FCOS (Tian et al., 2019): from the anchor's centre to the left, top, right and bottom
              edge.
            - ``"cells"``, YOLO (Redmon and Farhadi, 2017): the sigmoids of the first two are the centre's place in the
              grid cell in whose middle the anchor lies; logarithms of sizes as above.
        weights: of deltas: each is divided by its own.
        bbox_xform_clip: largest logarithm of a size, of deltas and cells; larger ones count as that.
        normalize_by_size: distances are in units of the anchor's size, and otherwise in pixels.
        stride: the side of a cell, in pixels: a number, so one level a call.

    Returns:
        (x1, y1, x2, y2) in the anchors' unit: ``[..., 4]`` as the deltas, or ``[..., C, 4]``. Of the wider type of the
        two, float32 for halves. Differentiable in both arguments, twice.

    Raises:
        RuntimeError: for a wrong shape, dtype or device, or an unknown coding.

    Note:
        float32 and float64 boxes agree with torchvision's ``BoxCoder`` and ``BoxLinearCoder`` to the bit.
    """
    number = _coding("decode_boxes", coding, normalize_by_size)
    _check_operands("decode_boxes", "deltas", deltas, anchors, classes=True)
    clip = _checks.number("decode_boxes", "bbox_xform_clip", bbox_xform_clip)
    side = _checks.number("decode_boxes", "stride", stride)
    options = (number, _checks.divisors("decode_boxes", "weights", weights), clip, side)
    shape = deltas.shape
    if shape[-1] != 4:
        shape = torch.Size((*shape[:-1], shape[-1] // 4, 4))
        deltas, anchors = deltas.reshape(shape), anchors[..., None, :]
    return _decode_boxes(*_rows("decode_boxes", "deltas", deltas, anchors), *options).reshape(shape)


def encode_boxes(
    boxes: torch.Tensor,
    anchors: torch.Tensor,
    *,
    coding: str = "deltas",
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    normalize_by_size: bool = True,
    stride: float = 1.0,
) -> torch.Tensor:
    """What a detector head should have said for each box to come out of its anchor: undone by :func:`decode_boxes`.

    Args:
        boxes: ``[..., 4]`` (x1, y1, x2, y2), each matched to an anchor; float16, bfloat16, float32 or float64. Halves
            are encoded in float32.
        anchors: ``[..., 4]``, whose leading dimensions broadcast to those of ``boxes``.
        coding: as for :func:`decode_boxes`.
        weights: of deltas: each is multiplied by its own.
        normalize_by_size: as for :func:`decode_boxes`.
        stride: as for :func:`decode_boxes`.

    Returns:
        ``[..., 4]``, of the wider type of the two, float32 for halves. A box without width or height gives -inf, an
        anchor without, or a box whose centre is outside the cell, NaN or infinity. Differentiable in both, twice.

    Raises:
        RuntimeError: for a wrong shape, dtype or device, or an unknown coding.

    Note:
        float32 and float64 codes agree with torchvision's ``BoxCoder.encode(boxes, anchors)`` and
        ``BoxLinearCoder.encode(anchors, boxes)`` to the bit.
    """
    number = _coding("encode_boxes", coding, normalize_by_size)
    _check_operands("encode_boxes", "boxes", boxes, anchors, classes=False)
    options = (
        number,
        _checks.divisors("encode_boxes", "weights", weights),
        _checks.number("encode_boxes", "stride", stride),
    )
    return _encode_boxes(*_rows("encode_boxes", "boxes", boxes, anchors), *options).reshape(boxes.shape)


def _coding(op: str, coding: str, normalize_by_size: bool) -> int:
    require(
        coding in PUBLIC_CODINGS,
        lambda: f"{op}: coding must be one of {', '.join(PUBLIC_CODINGS)}, got {coding!r}",
    )
    return CODINGS.index("pixel_distances" if coding == "distances" and not normalize_by_size else coding)


def _check_operands(op: str, name: str, coded: torch.Tensor, anchors: torch.Tensor, classes: bool) -> None:
    for what, t, several in ((name, coded, classes), ("anchors", anchors, False)):
        require(
            isinstance(t, torch.Tensor)
            and t.dim() >= 1
            and (bool(t.shape[-1] % 4 == 0) and t.shape[-1] > 0 if several else bool(t.shape[-1] == 4)),
            lambda what=what, t=t, several=several: (  # type: ignore[misc]
                f"{op}: {what} must be [..., 4]{' or [..., 4 * C]' if several else ''}, got "
                f"{list(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__}"
            ),
        )
        _checks.floating(op, what, t)
    _checks.same_device(op, "anchors", anchors, name, coded)


def _rows(op: str, name: str, coded: torch.Tensor, anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[R, C, 4]`` and ``[A, 4]``: anchors that repeat along the first dimensions or the last are not copied."""
    shape = tuple(coded.shape[:-1])
    missing = len(shape) - (anchors.dim() - 1)
    given = (1,) * missing + tuple(anchors.shape[:-1])
    require(
        missing >= 0 and all(bool(b == 1) or bool(a == b) for a, b in zip(shape, given, strict=True)),
        lambda: (
            f"{op}: the leading dimensions of anchors must broadcast to those of {name}, got {list(anchors.shape)} "
            f"and {list(coded.shape)}"
        ),
    )
    end = len(shape)
    while end > 0 and given[end - 1] == 1 and shape[end - 1] != 1:
        end -= 1
    start = 0
    while start < end and given[start] == 1 and shape[start] != 1:
        start += 1
    middle = shape[start:end]
    # Widened, so that the gradients of anchors that do repeat in the middle are not added in a half type.
    anchors = anchors.to(torch.promote_types(anchors.dtype, torch.float32)).reshape(*given[start:], 4)
    anchors = anchors.expand(*middle, *given[end:], 4).reshape(math.prod(middle), 4)
    return coded.reshape(math.prod(shape[:end]), math.prod(shape[end:]), 4), anchors


def _check(op: str, name: str, coded, anchors, coding, weights) -> None:
    require(
        coded.dim() == 3 and coded.shape[2] == 4,
        lambda: f"{op}: {name} must be [R, C, 4], got {list(coded.shape)}",
    )
    require(
        anchors.dim() == 2 and anchors.shape[1] == 4,
        lambda: f"{op}: anchors must be [A, 4], got {list(anchors.shape)}",
    )
    _checks.floating(op, name, coded)
    _checks.floating(op, "anchors", anchors)
    _checks.same_device(op, "anchors", anchors, name, coded)
    rows, count = coded.shape[0], anchors.shape[0]
    require(
        rows % count == 0 if count != 0 else rows == 0,
        lambda: f"{op}: the rows of {name} must be a multiple of the anchors, got {rows} and {count}",
    )
    require(0 <= coding < len(CODINGS), lambda: f"{op}: coding must be 0 to {len(CODINGS) - 1}, got {coding}")
    require(len(weights) == 4, lambda: f"{op}: weights must be four numbers, got {len(weights)}")


def _result_type(coded: torch.Tensor, anchors: torch.Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(coded.dtype, anchors.dtype), torch.float32)


def _check_grad(op: str, grad, coded, anchors) -> None:
    message = lambda: f"{op}: grad must be {list(coded.shape)}, got {list(grad.shape)}"  # noqa: E731
    require(grad.dim() == 3, message)
    for size, wanted in zip(grad.shape, coded.shape, strict=True):
        require(size == wanted, message)
    dtype = _result_type(coded, anchors)
    require(grad.dtype == dtype, lambda: f"{op}: grad must be of the result's type, {dtype}, got {grad.dtype}")
    _checks.same_device(op, "grad", grad, "what is coded", coded)


def _op(name: str, operand: str) -> Op:
    """The op and its backward: both directions differ in their last arguments alone."""

    def check(coded, anchors, coding, weights, *rest) -> None:
        _check(name, operand, coded, anchors, coding, weights)

    def fake(coded, anchors, *options):
        return coded.new_empty(coded.shape, dtype=_result_type(coded, anchors))

    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.options = inputs[2:]

    def backward(ops, ctx, grad):
        found = getattr(ops, f"{name}_backward")(grad, *ctx.saved_tensors, *ctx.options)
        return *found, *[None] * len(ctx.options)

    def check_backward(grad, coded, anchors, coding, weights, *rest) -> None:
        _check(f"{name}_backward", operand, coded, anchors, coding, weights)
        _check_grad(f"{name}_backward", grad, coded, anchors)

    def fake_backward(grad, coded, anchors, *options):
        return tuple(t.new_empty(t.shape) for t in (coded, anchors))

    def setup_context_backward(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.options = inputs[3:]

    def double_backward(ops, ctx, *grads):
        found = differentiate(getattr(definition, f"{name}_backward"), ctx.saved_tensors, ctx.options, grads)
        return *found, *[None] * len(ctx.options)

    Op(
        f"{name}_backward",
        module="box_coding",
        check=check_backward,
        fake=fake_backward,
        backward=double_backward,
        setup_context=setup_context_backward,
    )
    return Op(name, module="box_coding", check=check, fake=fake, backward=backward, setup_context=setup_context)


_decode_boxes = _op("decode_boxes", "deltas")
_encode_boxes = _op("encode_boxes", "boxes")
