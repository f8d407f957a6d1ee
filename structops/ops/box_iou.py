"""Intersection over union of boxes in its four forms: public functions, fake kernels, checks and autograd formulas."""

from __future__ import annotations

import math

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops._double_backward import differentiate
from structops.reference import box_iou as definition
from structops.reference.box_iou import FORMATS, KINDS


def box_iou(
    boxes1: torch.Tensor, boxes2: torch.Tensor, fmt: str = "xyxy", *, elementwise: bool = False
) -> torch.Tensor:
    """Intersection over union (Jaccard index) of every box of one set with every box of another.

    Args:
        boxes1: ``[..., N, 4]``, any unit; float16, bfloat16, float32 or float64. Halves are compared in float32.
        boxes2: ``[..., M, 4]``, likewise; leading dimensions broadcast with those of ``boxes1``.
        fmt: what the four numbers of a box are: ``"xyxy"`` (x1, y1, x2, y2), ``"xywh"`` (x1, y1, width, height) or
            ``"cxcywh"`` (centre, width, height).
        elementwise: pairs each box of ``boxes1`` with the one box of ``boxes2`` in the same place instead; the two
            then broadcast as ``[..., 4]``.

    Returns:
        ``[..., N, M]``; elementwise ``[...]``. Of the wider type of the two, float32 for halves. 0 for boxes that do
        not overlap, NaN for two of area zero, and wherever a coordinate is NaN. Differentiable in both arguments,
        twice; of a coordinate that two boxes share each takes half of the gradient.

    Raises:
        RuntimeError: for a wrong shape, dtype or device, or an unknown format.

    Note:
        float32 and float64 values agree with ``torchvision.ops.box_iou`` to the bit. From halves torchvision rounds the
        sides of an intersection to the half type, which this does not. Rotated formats are not taken here.
    """
    return _pairs("box_iou", boxes1, boxes2, "plain", elementwise, fmt=fmt)


def generalized_box_iou(boxes1: torch.Tensor, boxes2: torch.Tensor, *, elementwise: bool = False) -> torch.Tensor:
    """Generalized IoU (Rezatofighi et al., "Generalized Intersection over Union", 2019).

    IoU less the share of the smallest box around both that neither covers: also tells how far apart boxes are that do
    not overlap.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), as for :func:`box_iou`.
        boxes2: ``[..., M, 4]``, likewise.
        elementwise: as for :func:`box_iou`.

    Returns:
        ``[..., N, M]``; elementwise ``[...]``; types and NaN as for :func:`box_iou`. From -1 to 1.

    Raises:
        RuntimeError: for a wrong shape, dtype or device.
    """
    return _pairs("generalized_box_iou", boxes1, boxes2, "generalized", elementwise)


def distance_box_iou(
    boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float = 1e-7, *, elementwise: bool = False
) -> torch.Tensor:
    """Distance IoU (Zheng et al., "Distance-IoU Loss", 2020).

    IoU less the squared distance of the centres over the squared diagonal of the smallest box around both.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), as for :func:`box_iou`.
        boxes2: ``[..., M, 4]``, likewise.
        eps: added to the squared diagonal, in the boxes' unit squared.
        elementwise: as for :func:`box_iou`.

    Returns:
        ``[..., N, M]``; elementwise ``[...]``; types and NaN as for :func:`box_iou`. From -1 to 1.

    Raises:
        RuntimeError: for a wrong shape, dtype or device.
    """
    return _pairs("distance_box_iou", boxes1, boxes2, "distance", elementwise, eps=eps)


def complete_box_iou(
    boxes1: torch.Tensor, boxes2: torch.Tensor, eps: float = 1e-7, *, elementwise: bool = False
) -> torch.Tensor:
    """Complete IoU (Zheng et al., "Distance-IoU Loss", 2020): distance IoU less a term for unlike aspect ratios.

    Args:
        boxes1: ``[..., N, 4]`` (x1, y1, x2, y2), as for :func:`box_iou`.
        boxes2: ``[..., M, 4]``, likewise.
        eps: added to the squared diagonal and to the denominator of the aspect term's weight.
        elementwise: as for :func:`box_iou`.

    Returns:
        ``[..., N, M]``; elementwise ``[...]``; types and NaN as for :func:`box_iou`; NaN also for a box without width
        and height. The weight of the aspect term is a constant in the gradient, as its authors have it.

    Raises:
        RuntimeError: for a wrong shape, dtype or device.
    """
    return _pairs("complete_box_iou", boxes1, boxes2, "complete", elementwise, eps=eps)


def _pairs(
    op: str,
    boxes1: torch.Tensor,
    boxes2: torch.Tensor,
    kind: str,
    elementwise: bool,
    fmt: str = "xyxy",
    eps: float = 0.0,
) -> torch.Tensor:
    """Any leading dimensions as the one batch that the dispatcher op has."""
    least = 1 if elementwise else 2
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        require(
            isinstance(boxes, torch.Tensor) and boxes.dim() >= least and bool(boxes.shape[-1] == 4),
            lambda name=name, boxes=boxes: (  # type: ignore[misc]
                f"{op}: {name} must be [{'...' if elementwise else '..., N'}, 4], got "
                f"{list(boxes.shape) if isinstance(boxes, torch.Tensor) else type(boxes).__name__}"
            ),
        )
        _checks.floating(op, name, boxes)
    _checks.same_device(op, "boxes2", boxes2, "boxes1", boxes1)
    require(fmt in FORMATS, lambda: f"{op}: fmt must be one of {', '.join(FORMATS)}, got {fmt!r}")
    options = (KINDS.index(kind), FORMATS.index(fmt), elementwise, eps)
    # The plain calls, without the cost of broadcasting.
    if elementwise and boxes1.dim() == boxes2.dim() == 2 and boxes1.shape[0] == boxes2.shape[0]:
        return _box_iou(boxes1, boxes2, *options)
    if not elementwise and boxes1.dim() == boxes2.dim() == 2:
        return _box_iou(boxes1[None], boxes2[None], *options)[0]
    kept = 1 if elementwise else 2
    try:
        batch = torch.broadcast_shapes(boxes1.shape[:-kept], boxes2.shape[:-kept])
    except RuntimeError as error:
        shapes = f"{list(boxes1.shape)} and {list(boxes2.shape)}"
        raise RuntimeError(f"{op}: leading dimensions of boxes1 and boxes2 must broadcast, got {shapes}") from error
    # Widened here, so that the gradients of a box that is used twice are not added in a half type.
    wide = [b.to(torch.promote_types(b.dtype, torch.float32)) for b in (boxes1, boxes2)]
    count = math.prod(batch)
    flat = [b.expand(*batch, *b.shape[-kept:]).reshape(count, *b.shape[-kept:]) for b in wide]
    found = _box_iou(*flat, *options)
    return found.reshape(batch) if elementwise else found.reshape(*batch, boxes1.shape[-2], boxes2.shape[-2])


def _check(boxes1, boxes2, kind, fmt, elementwise, eps, op: str = "box_iou") -> None:
    rank, shape = (2, "[N, 4]") if elementwise else (3, "[B, N, 4]")
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        require(
            boxes.dim() == rank and boxes.shape[-1] == 4,
            lambda name=name, boxes=boxes: f"{op}: {name} must be {shape}, got {list(boxes.shape)}",  # type: ignore[misc]
        )
        _checks.floating(op, name, boxes)
    _checks.same_device(op, "boxes2", boxes2, "boxes1", boxes1)
    what = "number of boxes" if elementwise else "batch size"
    require(
        boxes1.shape[0] == boxes2.shape[0],
        lambda: f"{op}: boxes1 and boxes2 must have the same {what}, got {boxes1.shape[0]} and {boxes2.shape[0]}",
    )
    require(0 <= kind < len(KINDS), lambda: f"{op}: kind must be 0 to {len(KINDS) - 1}, got {kind}")
    require(0 <= fmt < len(FORMATS), lambda: f"{op}: fmt must be 0 to {len(FORMATS) - 1}, got {fmt}")


def _result_type(boxes1: torch.Tensor, boxes2: torch.Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)


def _fake(boxes1, boxes2, kind, fmt, elementwise, eps):
    size = (boxes1.shape[0],) if elementwise else (boxes1.shape[0], boxes1.shape[1], boxes2.shape[1])
    return boxes1.new_empty(size, dtype=_result_type(boxes1, boxes2))


def _setup_context(ctx, inputs, output) -> None:
    boxes1, boxes2, *ctx.options = inputs
    ctx.save_for_backward(boxes1, boxes2)


def _backward(ops, ctx, grad):
    return *ops.box_iou_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None


def _check_backward(grad, boxes1, boxes2, kind, fmt, elementwise, eps) -> None:
    op = "box_iou_backward"
    _check(boxes1, boxes2, kind, fmt, elementwise, eps, op)
    wanted = (boxes1.shape[0],) if elementwise else (boxes1.shape[0], boxes1.shape[1], boxes2.shape[1])
    message = lambda: f"{op}: grad must have the shape of the result, {list(wanted)}, got {list(grad.shape)}"  # noqa: E731
    require(grad.dim() == len(wanted), message)
    for size, want in zip(grad.shape, wanted, strict=True):
        require(size == want, message)
    dtype = _result_type(boxes1, boxes2)
    require(grad.dtype == dtype, lambda: f"{op}: grad must be of the result's type, {dtype}, got {grad.dtype}")
    _checks.same_device(op, "grad", grad, "boxes1", boxes1)


def _fake_backward(grad, boxes1, boxes2, *options):
    return tuple(b.new_empty(b.shape) for b in (boxes1, boxes2))


def _setup_context_backward(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _double_backward(ops, ctx, *grads):
    found = differentiate(definition.box_iou_backward, ctx.saved_tensors, ctx.options, grads)
    return *found, None, None, None, None


_box_iou = Op(
    "box_iou",
    module="box_iou",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_box_iou_backward = Op(
    "box_iou_backward",
    module="box_iou",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
