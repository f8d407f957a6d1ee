"""Boxes to and from a detector head's regression outputs, forward and backward.

Exponentials and logarithms are torch's own: no other rounds alike in the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
from structops.triton_kernels._box_coding_kernels import code_boxes_backward_kernel, code_boxes_kernel
from structops.triton_kernels._launch import Launch, double_bits, run

from structops.reference.box_coding import CODINGS

_BLOCK = 128
# No fused multiply-adds: every operation rounds once.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


def _operands(boxes: torch.Tensor, anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, anchors.dtype), torch.float32)
    return boxes.to(dtype).contiguous(), anchors.to(dtype).contiguous()


def _exponentials(deltas, coding, weights, clip) -> dict[str, torch.Tensor | None]:
    if CODINGS[coding] not in ("deltas", "cells"):
        return {"offsets": None, "sizes": None}
    a, b, c, d = deltas.unbind(-1)
    if CODINGS[coding] == "deltas":
        c, d = c / weights[2], d / weights[3]
    offsets = torch.stack((-a, -b), -1).exp() if CODINGS[coding] == "cells" else None
    return {"offsets": offsets, "sizes": torch.stack((c, d), -1).clamp(max=clip).exp()}


def _logarithms(boxes, anchors, coding, stride) -> dict[str, torch.Tensor | None]:
    if CODINGS[coding] not in ("deltas", "cells"):
        return {"offsets": None, "sizes": None}
    count = anchors.shape[0]
    by_anchor = boxes.reshape(boxes.shape[0] // count if count else 0, count, *boxes.shape[1:])
    sides = by_anchor[..., 2:] - by_anchor[..., :2]
    anchor_sides = anchors[:, None, 2:] - anchors[:, None, :2]
    offsets = None
    if CODINGS[coding] == "cells":
        centres = by_anchor[..., :2] + 0.5 * sides
        place = (centres - (anchors[:, None, :2] + 0.5 * anchor_sides)) / stride + 0.5
        offsets = (place / (1 - place)).contiguous().log()
    return {"offsets": offsets, "sizes": (sides / anchor_sides).contiguous().log()}


def _constants(coding: int, weights: Sequence[float], stride: float, decode: bool) -> dict[str, object]:
    names = dict(zip(("WX", "WY", "WW", "WH"), map(float, weights), strict=True))
    return {"DECODE": decode, "CODING": coding, "stride_bits": double_bits(stride), "BLOCK": _BLOCK, **names}


def _code(decode, boxes, anchors, coding, weights, clip, stride) -> tuple[torch.Tensor, list[Launch]]:
    boxes, anchors = _operands(boxes, anchors)
    out = torch.empty_like(boxes)
    if out.numel() == 0:
        return out, []
    curves = _exponentials(boxes, coding, weights, clip) if decode else _logarithms(boxes, anchors, coding, stride)
    arguments = {
        "boxes": boxes,
        "anchors": anchors,
        **curves,
        "out": out,
        "count": out.numel() // 4,
        "anchor_count": anchors.shape[0],
        "classes": boxes.shape[1],
        **_constants(coding, weights, stride, decode),
    }
    return out, [Launch(code_boxes_kernel, (triton.cdiv(out.numel() // 4, _BLOCK),), arguments, _OPTIONS)]


def _code_backward(
    decode, grad, boxes, anchors, coding, weights, clip, stride
) -> tuple[tuple[torch.Tensor, torch.Tensor], list[Launch]]:
    boxes, anchors = _operands(boxes, anchors)
    grad_boxes, grad_anchors = torch.empty_like(boxes), torch.empty_like(anchors)
    count = anchors.shape[0]
    curves = _exponentials(boxes, coding, weights, clip) if decode else {"offsets": None, "sizes": None}
    arguments = {
        "grad": grad.contiguous(),
        "boxes": boxes,
        "anchors": anchors,
        **curves,
        "grad_boxes": grad_boxes,
        "grad_anchors": grad_anchors,
        "batch": boxes.shape[0] // count if count else 0,
        "anchor_count": count,
        "classes": boxes.shape[1],
        "clip_bits": double_bits(clip),
        **_constants(coding, weights, stride, decode),
    }
    launch = Launch(code_boxes_backward_kernel, (triton.cdiv(count, _BLOCK),), arguments, _OPTIONS)
    return (grad_boxes, grad_anchors), [launch]


def _run_forward(*arguments) -> torch.Tensor:
    out, launches = _code(*arguments)
    run(out.device, launches)
    return out


def _run_backward(decode, grad, boxes, anchors, *options) -> tuple[torch.Tensor, torch.Tensor]:
    (grad_boxes, grad_anchors), launches = _code_backward(decode, grad, boxes, anchors, *options)
    run(grad.device, launches)
    return grad_boxes.to(boxes.dtype), grad_anchors.to(anchors.dtype)


def decode_boxes(
    deltas: torch.Tensor, anchors: torch.Tensor, coding: int, weights: Sequence[float], clip: float, stride: float
) -> torch.Tensor:
    """Boxes ``[R, C, 4]`` from ``deltas [R, C, 4]``; row r belongs to anchor r % A of ``[A, 4]``."""
    return _run_forward(True, deltas, anchors, coding, weights, clip, stride)


def decode_boxes_backward(
    grad: torch.Tensor,
    deltas: torch.Tensor,
    anchors: torch.Tensor,
    coding: int,
    weights: Sequence[float],
    clip: float,
    stride: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`decode_boxes` with respect to deltas and anchors, for ``grad [R, C, 4]``."""
    return _run_backward(True, grad, deltas, anchors, coding, weights, clip, stride)


def encode_boxes(
    boxes: torch.Tensor, anchors: torch.Tensor, coding: int, weights: Sequence[float], stride: float
) -> torch.Tensor:
    """Deltas ``[R, C, 4]`` from ``boxes [R, C, 4]``; row r belongs to anchor r % A of ``[A, 4]``."""
    return _run_forward(False, boxes, anchors, coding, weights, 0.0, stride)


def encode_boxes_backward(
    grad: torch.Tensor,
    boxes: torch.Tensor,
    anchors: torch.Tensor,
    coding: int,
    weights: Sequence[float],
    stride: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`encode_boxes` with respect to boxes and anchors, for ``grad [R, C, 4]``."""
    return _run_backward(False, grad, boxes, anchors, coding, weights, 0.0, stride)


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.bfloat16, torch.float64):  # all halves and float32 are one
        for coding, name in enumerate(CODINGS):
            for decode in (True, False):
                boxes = torch.empty((2000, 1, 4), dtype=dtype, device="meta")
                anchors = torch.empty((1000, 4), dtype=dtype, device="meta")
                options = (coding, (10.0, 10.0, 5.0, 5.0), 4.0, 16.0)
                label = f"{str(dtype)[6:]}-{'decode' if decode else 'encode'}-{name}"
                out, launches = _code(decode, boxes, anchors, *options)
                yield from ((f"forward-{label}", launch) for launch in launches)
                _, launches = _code_backward(decode, out, boxes, anchors, *options)
                yield from ((f"backward-{label}", launch) for launch in launches)
