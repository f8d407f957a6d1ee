"""Intersection over union of boxes, and its generalized, distance and complete forms, by definition."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

KINDS = ("plain", "generalized", "distance", "complete")
FORMATS = ("xyxy", "xywh", "cxcywh")

_ASPECT_SCALE = 4 / math.pi**2


@dataclass(frozen=True)
class _Sides:
    """Corners, width and height ``[...]`` of boxes ``[..., 4]``."""

    x1: torch.Tensor
    y1: torch.Tensor
    x2: torch.Tensor
    y2: torch.Tensor
    width: torch.Tensor
    height: torch.Tensor

    @classmethod
    def of(cls, boxes: torch.Tensor, fmt: int) -> _Sides:
        a, b, c, d = boxes.unbind(-1)
        if FORMATS[fmt] == "xyxy":
            return cls(a, b, c, d, c - a, d - b)
        if FORMATS[fmt] == "xywh":
            return cls(a, b, a + c, b + d, c, d)
        return cls(a - c / 2, b - d / 2, a + c / 2, b + d / 2, c, d)


def _paired(boxes1: torch.Tensor, boxes2: torch.Tensor, fmt: int, elementwise: bool) -> tuple[_Sides, _Sides]:
    """The two boxes of every pair, in at least float32, in shapes that broadcast to the result's."""
    compute = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    boxes1, boxes2 = boxes1.to(compute), boxes2.to(compute)
    if not elementwise:
        boxes1, boxes2 = boxes1[:, :, None], boxes2[:, None]
    return _Sides.of(boxes1, fmt), _Sides.of(boxes2, fmt)


def _overlap(a: _Sides, b: _Sides) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed width and height of the intersection."""
    width = torch.minimum(a.x2, b.x2) - torch.maximum(a.x1, b.x1)
    return width, torch.minimum(a.y2, b.y2) - torch.maximum(a.y1, b.y1)


def _hull(a: _Sides, b: _Sides) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed width and height of the smallest box around both."""
    width = torch.maximum(a.x2, b.x2) - torch.minimum(a.x1, b.x1)
    return width, torch.maximum(a.y2, b.y2) - torch.minimum(a.y1, b.y1)


def _between_centres(a: _Sides, b: _Sides) -> tuple[torch.Tensor, torch.Tensor]:
    dx = (a.x1 + a.x2) / 2 - (b.x1 + b.x2) / 2
    return dx, (a.y1 + a.y2) / 2 - (b.y1 + b.y2) / 2


def _aspect(a: _Sides, b: _Sides, iou: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The angle between the two diagonals, the term that measures it, and that term's weight."""
    turn = torch.atan(a.width / a.height) - torch.atan(b.width / b.height)
    term = _ASPECT_SCALE * turn.square()
    return turn, term, term / (1 - iou + term + eps)


def box_iou(
    boxes1: torch.Tensor, boxes2: torch.Tensor, kind: int, fmt: int, elementwise: bool, eps: float
) -> torch.Tensor:
    """``[B, N, M]`` for ``boxes1 [B, N, 4]`` and ``boxes2 [B, M, 4]``; elementwise ``[N]`` for two ``[N, 4]``.

    ``kind`` and ``fmt`` are indices into :data:`KINDS` and :data:`FORMATS`. Halves are widened to float32. Every
    operation rounds once, in the order written here.
    """
    a, b = _paired(boxes1, boxes2, fmt, elementwise)
    width, height = (side.clamp(min=0) for side in _overlap(a, b))
    intersection = width * height
    union = a.width * a.height + b.width * b.height - intersection
    iou = intersection / union
    if KINDS[kind] == "plain":
        return iou
    width, height = (side.clamp(min=0) for side in _hull(a, b))
    if KINDS[kind] == "generalized":
        hull = width * height
        return iou - (hull - union) / hull
    dx, dy = _between_centres(a, b)
    distance = iou - (dx.square() + dy.square()) / (width.square() + height.square() + eps)
    if KINDS[kind] == "distance":
        return distance
    _, term, alpha = _aspect(a, b, iou, eps)
    return distance - alpha.detach() * term


def box_iou_backward(
    grad: torch.Tensor,
    boxes1: torch.Tensor,
    boxes2: torch.Tensor,
    kind: int,
    fmt: int,
    elementwise: bool,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`box_iou` with respect to both sets of boxes, for ``grad`` of its result's shape.

    A maximum or minimum of equals gives half of its gradient to each, a side of length 0 none at all. The weight of the
    complete form's aspect term is a constant.
    """
    a, b = _paired(boxes1, boxes2, fmt, elementwise)
    to_a, to_b = _SideGradients(elementwise, 2), _SideGradients(elementwise, 1)
    open_width, open_height = _overlap(a, b)
    width, height = open_width.clamp(min=0), open_height.clamp(min=0)
    intersection = width * height
    union = a.width * a.height + b.width * b.height - intersection
    iou = intersection / union
    to_union = -grad * (iou / union)
    if KINDS[kind] != "plain":
        hull_open_width, hull_open_height = _hull(a, b)
        hull_width, hull_height = hull_open_width.clamp(min=0), hull_open_height.clamp(min=0)
        if KINDS[kind] == "generalized":
            hull = hull_width * hull_height
            to_outside = -grad / hull
            to_hull = grad * ((hull - union) / hull / hull) + to_outside
            to_union = to_union - to_outside
            to_width, to_height = to_hull * hull_height, to_hull * hull_width
        else:
            dx, dy = _between_centres(a, b)
            diagonal = hull_width.square() + hull_height.square() + eps
            to_diagonal = grad * ((dx.square() + dy.square()) / diagonal / diagonal)
            to_width, to_height = to_diagonal * (2 * hull_width), to_diagonal * (2 * hull_height)
            for axis, offset in (("x", dx), ("y", dy)):
                to_corner = -grad / diagonal * offset  # half of a centre's, to either corner
                for end in "12":
                    to_a.add(axis + end, to_corner)
                    to_b.add(axis + end, -to_corner)
        for axis, to_side, side in (("x", to_width, hull_open_width), ("y", to_height, hull_open_height)):
            to_side = torch.where(side > 0, to_side, 0)
            _pass_on(torch.gt, f"{axis}2", a, b, to_side, to_a, to_b)
            _pass_on(torch.lt, f"{axis}1", a, b, -to_side, to_a, to_b)
    if KINDS[kind] == "complete":
        turn, _, alpha = _aspect(a, b, iou, eps)
        to_turn = -grad * alpha.detach() * (_ASPECT_SCALE * (2 * turn))
        to_a.add("angle", to_turn)
        to_b.add("angle", -to_turn)
    to_intersection = grad / union - to_union
    for axis, to_side, side in (
        ("x", to_intersection * height, open_width),
        ("y", to_intersection * width, open_height),
    ):
        to_side = torch.where(side > 0, to_side, 0)
        _pass_on(torch.lt, f"{axis}2", a, b, to_side, to_a, to_b)
        _pass_on(torch.gt, f"{axis}1", a, b, -to_side, to_a, to_b)
    for to in (to_a, to_b):
        to.add("area", to_union)
    return to_a.of_boxes(boxes1, fmt), to_b.of_boxes(boxes2, fmt)


class _SideGradients:
    """What reaches the corners, the area and the angle of every box: a sum over the boxes that it is paired with."""

    def __init__(self, elementwise: bool, others: int) -> None:
        self.others = () if elementwise else (others,)  # the dimension to sum over
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, pairs: torch.Tensor) -> None:
        total = pairs.sum(self.others) if self.others else pairs
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def of_boxes(self, boxes: torch.Tensor, fmt: int) -> torch.Tensor:
        """``[..., 4]``, as the boxes."""
        sides = _Sides.of(boxes.to(self.sums["area"].dtype), fmt)
        x1, y1, x2, y2 = (self.sums[name] for name in ("x1", "y1", "x2", "y2"))
        to_width, to_height = self.sums["area"] * sides.height, self.sums["area"] * sides.width
        if "angle" in self.sums:
            ratio = sides.width / sides.height
            to_ratio = self.sums["angle"] / (ratio.square() + 1)
            to_width, to_height = to_width + to_ratio / sides.height, to_height - to_ratio * (ratio / sides.height)
        if FORMATS[fmt] == "xyxy":
            parts = x1 - to_width, y1 - to_height, x2 + to_width, y2 + to_height
        elif FORMATS[fmt] == "xywh":
            parts = x1 + x2, y1 + y2, x2 + to_width, y2 + to_height
        else:
            parts = x1 + x2, y1 + y2, (x2 - x1) / 2 + to_width, (y2 - y1) / 2 + to_height
        return torch.stack(parts, -1).to(boxes.dtype)


def _pass_on(wins, name: str, a: _Sides, b: _Sides, grad: torch.Tensor, to_a, to_b) -> None:
    """The gradient of a maximum (``wins`` is ``>``) or minimum (``<``) of one coordinate, to whom it came from."""
    mine, theirs = getattr(a, name), getattr(b, name)
    share = torch.where(mine == theirs, grad / 2, grad)
    to_a.add(name, torch.where(wins(theirs, mine), 0, share))
    to_b.add(name, torch.where(wins(mine, theirs), 0, share))
