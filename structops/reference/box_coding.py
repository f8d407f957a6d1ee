"""Boxes to and from a detector head's regression outputs, by definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

CODINGS = ("deltas", "distances", "pixel_distances", "cells")


@dataclass(frozen=True)
class _Centred:
    """Centre and size of boxes ``[..., 4]`` (x1, y1, x2, y2)."""

    x: torch.Tensor
    y: torch.Tensor
    width: torch.Tensor
    height: torch.Tensor

    @classmethod
    def of(cls, boxes: torch.Tensor, coding: int = 0) -> _Centred:
        x1, y1, x2, y2 = boxes.unbind(-1)
        width, height = x2 - x1, y2 - y1
        if "distances" in CODINGS[coding]:  # rounds in another way
            return cls(0.5 * (x1 + x2), 0.5 * (y1 + y2), width, height)
        return cls(x1 + 0.5 * width, y1 + 0.5 * height, width, height)

    @staticmethod
    def gradient(x, y, width, height) -> torch.Tensor:
        """Of the corners, from those of centre and size."""
        return torch.stack((0.5 * x - width, 0.5 * y - height, 0.5 * x + width, 0.5 * y + height), -1)


def _operands(boxes: torch.Tensor, anchors: torch.Tensor, coding: int) -> tuple[torch.Tensor, _Centred]:
    """``[B, A, C, 4]`` and the anchors ``[A, 1]``, in at least float32."""
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, anchors.dtype), torch.float32)
    return _by_anchor(boxes.to(dtype), anchors), _Centred.of(anchors.to(dtype)[:, None], coding)


def _by_anchor(rows: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """``[R, C, 4]`` as ``[B, A, C, 4]``."""
    count = len(anchors)
    return rows.reshape(len(rows) // count if count else 0, count, *rows.shape[1:])


def _of_anchors(anchors: torch.Tensor, *of_pairs: torch.Tensor) -> torch.Tensor:
    """Gradients of the anchors' centres and sizes, summed over images and classes, as those of ``anchors [A, 4]``."""
    return _Centred.gradient(*(g.sum((0, 2)) for g in of_pairs)).to(anchors.dtype)


def decode_boxes(
    deltas: torch.Tensor, anchors: torch.Tensor, coding: int, weights: Sequence[float], clip: float, stride: float
) -> torch.Tensor:
    """Boxes ``[R, C, 4]`` (x1, y1, x2, y2) from ``deltas [R, C, 4]``; row r belongs to anchor r % A of ``[A, 4]``.

    ``coding`` is an index into :data:`CODINGS`. Halves are widened to float32. Every operation rounds once, in the
    order written here.
    """
    code, anchor = _operands(deltas, anchors, coding)
    a, b, c, d = code.unbind(-1)
    if not _has_sizes(coding):
        if CODINGS[coding] == "distances":
            a, b, c, d = a * anchor.width, b * anchor.height, c * anchor.width, d * anchor.height
        return torch.stack((anchor.x - a, anchor.y - b, anchor.x + c, anchor.y + d), -1).flatten(0, 1)
    if CODINGS[coding] == "deltas":
        wx, wy, ww, wh = weights
        x, y = a / wx * anchor.width + anchor.x, b / wy * anchor.height + anchor.y
        c, d = c / ww, d / wh
    else:
        x, y = (a.sigmoid() - 0.5) * stride + anchor.x, (b.sigmoid() - 0.5) * stride + anchor.y
    half_width = 0.5 * (c.clamp(max=clip).exp() * anchor.width)
    half_height = 0.5 * (d.clamp(max=clip).exp() * anchor.height)
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), -1).flatten(0, 1)


def _has_sizes(coding: int) -> bool:
    return CODINGS[coding] in ("deltas", "cells")


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
    code, anchor = _operands(deltas, anchors, coding)
    a, b, c, d = code.unbind(-1)
    g1, g2, g3, g4 = _by_anchor(grad, anchors).unbind(-1)
    to_x, to_y = g1 + g3, g2 + g4
    if not _has_sizes(coding):
        if CODINGS[coding] == "distances":
            to_code = -g1 * anchor.width, -g2 * anchor.height, g3 * anchor.width, g4 * anchor.height
            of_anchors = to_x, to_y, g3 * c - g1 * a, g4 * d - g2 * b
        else:
            to_code, of_anchors = (-g1, -g2, g3, g4), (to_x, to_y, 0 * g1, 0 * g2)
        return torch.stack(to_code, -1).flatten(0, 1).to(deltas.dtype), _of_anchors(anchors, *of_anchors)
    wx, wy, ww, wh = weights if CODINGS[coding] == "deltas" else (1.0, 1.0, 1.0, 1.0)
    ex, ey = (c / ww).clamp(max=clip).exp(), (d / wh).clamp(max=clip).exp()
    half_width, half_height = 0.5 * (g3 - g1), 0.5 * (g4 - g2)
    to_width, to_height = half_width * ex, half_height * ey
    if CODINGS[coding] == "deltas":
        to_a, to_b = to_x * anchor.width / wx, to_y * anchor.height / wy
        to_width, to_height = to_width + to_x * (a / wx), to_height + to_y * (b / wy)
    else:
        to_a, to_b = (to * stride * (v.sigmoid() * (1 - v.sigmoid())) for to, v in ((to_x, a), (to_y, b)))
    to_c = torch.where(c / ww < clip, half_width * anchor.width * ex / ww, 0)
    to_d = torch.where(d / wh < clip, half_height * anchor.height * ey / wh, 0)
    to_deltas = torch.stack((to_a, to_b, to_c, to_d), -1).flatten(0, 1).to(deltas.dtype)
    return to_deltas, _of_anchors(anchors, to_x, to_y, to_width, to_height)


def encode_boxes(
    boxes: torch.Tensor, anchors: torch.Tensor, coding: int, weights: Sequence[float], stride: float
) -> torch.Tensor:
    """Deltas ``[R, C, 4]`` from ``boxes [R, C, 4]`` (x1, y1, x2, y2): what :func:`decode_boxes` undoes."""
    corners, anchor = _operands(boxes, anchors, coding)
    if not _has_sizes(coding):
        x1, y1, x2, y2 = corners.unbind(-1)
        left, above, right, below = anchor.x - x1, anchor.y - y1, x2 - anchor.x, y2 - anchor.y
        if CODINGS[coding] == "distances":
            left, above = left / anchor.width, above / anchor.height
            right, below = right / anchor.width, below / anchor.height
        return torch.stack((left, above, right, below), -1).flatten(0, 1)
    box = _Centred.of(corners)
    log_width, log_height = (box.width / anchor.width).log(), (box.height / anchor.height).log()
    if CODINGS[coding] == "deltas":
        wx, wy, ww, wh = weights
        x, y = wx * (box.x - anchor.x) / anchor.width, wy * (box.y - anchor.y) / anchor.height
        return torch.stack((x, y, ww * log_width, wh * log_height), -1).flatten(0, 1)
    x, y = ((box.x - anchor.x) / stride + 0.5).logit(), ((box.y - anchor.y) / stride + 0.5).logit()
    return torch.stack((x, y, log_width, log_height), -1).flatten(0, 1)


def encode_boxes_backward(
    grad: torch.Tensor,
    boxes: torch.Tensor,
    anchors: torch.Tensor,
    coding: int,
    weights: Sequence[float],
    stride: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`encode_boxes` with respect to boxes and anchors, for ``grad [R, C, 4]``."""
    corners, anchor = _operands(boxes, anchors, coding)
    g1, g2, g3, g4 = _by_anchor(grad, anchors).unbind(-1)
    if not _has_sizes(coding):
        if CODINGS[coding] == "distances":
            x1, y1, x2, y2 = corners.unbind(-1)
            g1, g2, g3, g4 = g1 / anchor.width, g2 / anchor.height, g3 / anchor.width, g4 / anchor.height
            to_width = -(g1 * ((anchor.x - x1) / anchor.width) + g3 * ((x2 - anchor.x) / anchor.width))
            to_height = -(g2 * ((anchor.y - y1) / anchor.height) + g4 * ((y2 - anchor.y) / anchor.height))
        else:
            to_width, to_height = 0 * g1, 0 * g2
        to_boxes = torch.stack((-g1, -g2, g3, g4), -1).flatten(0, 1).to(boxes.dtype)
        return to_boxes, _of_anchors(anchors, g1 - g3, g2 - g4, to_width, to_height)
    box = _Centred.of(corners)
    if CODINGS[coding] == "deltas":
        wx, wy, ww, wh = weights
        to_x, to_y, g3, g4 = g1 / anchor.width * wx, g2 / anchor.height * wy, g3 * ww, g4 * wh
        to_width = -g1 * (wx * (box.x - anchor.x) / anchor.width / anchor.width)
        to_height = -g2 * (wy * (box.y - anchor.y) / anchor.height / anchor.height)
    else:
        x, y = (box.x - anchor.x) / stride + 0.5, (box.y - anchor.y) / stride + 0.5
        to_x, to_y = g1 / (x * (1 - x)) / stride, g2 / (y * (1 - y)) / stride
        to_width, to_height = 0 * g1, 0 * g2
    to_width, to_height = to_width - g3 / anchor.width, to_height - g4 / anchor.height
    to_boxes = _Centred.gradient(to_x, to_y, g3 / box.width, g4 / box.height).flatten(0, 1).to(boxes.dtype)
    return to_boxes, _of_anchors(anchors, -to_x, -to_y, to_width, to_height)
