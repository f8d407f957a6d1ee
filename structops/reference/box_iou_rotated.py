"""Intersection over union of rotated boxes by its definition.

The intersection of a box B with a box A, seen in directions in which A is the upright rectangle
``[left, right] x [top, bottom]``, is an integral along B's outline (Green's theorem): the sum over B's edges of
``-y dx``, where only the part of an edge between left and right counts and y is kept between top and bottom. An edge
is straight, so each integral is at most two rectangles and a trapezium, and no polygon is ever built: nothing is
sorted, no corner can be missed, and boxes that touch, contain each other or have no area are no special cases.

Everything is float64, relative to B's centre, and every operation is written out, in this order, in each backend:
results are the same to the last bit everywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from structops.reference.roi_align_rotated import COSINE, SINE

LIMIT, SMALLEST = 2.0**200, 2.0**-200  # kRotatedLimit and kRotatedSmallest in csrc/box_iou_rotated/rotated_box.h


class RotatedBoxes(NamedTuple):
    """Boxes taken apart, float64, of any one shape. Those that are not finite have a NaN area and no sides."""

    x: torch.Tensor
    y: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    half_width: torch.Tensor
    half_height: torch.Tensor
    area: torch.Tensor

    def at(self, index) -> RotatedBoxes:
        return RotatedBoxes(*(part[index] for part in self))


def rotations(degrees: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of float64 angles: :func:`structops.reference.roi_align_rotated.rotation`, for tensors."""
    turn = torch.fmod(degrees, 360.0)
    quarters = torch.floor(turn / 90.0 + 0.5)
    x = (turn - 90.0 * quarters) * (math.pi / 180)
    square = x * x
    s, c = torch.full_like(x, SINE[0]), torch.full_like(x, COSINE[0])
    for a in SINE[1:]:
        s = s * square + a
    for a in COSINE[1:]:
        c = c * square + a
    s = x + x * (s * square)
    quarter = quarters.long() % 4
    cos = torch.where(quarter == 0, c, torch.where(quarter == 1, -s, torch.where(quarter == 2, -c, s)))
    sin = torch.where(quarter == 0, s, torch.where(quarter == 1, c, torch.where(quarter == 2, -s, -c)))
    return cos, sin


def rotated_boxes(boxes: torch.Tensor) -> RotatedBoxes:
    """``[N, 5]`` (centre x, centre y, width, height, degrees), any floating type, to N boxes."""
    boxes = boxes.detach().double()
    finite = (boxes[:, :4].abs() <= LIMIT).all(1) & boxes[:, 4].isfinite()
    x, y, width, height, degrees = torch.where(finite[:, None], boxes, 0.0).unbind(1)
    solid = (width > SMALLEST) & (height > SMALLEST)
    width, height = torch.where(solid, width, 0.0), torch.where(solid, height, 0.0)
    area = torch.where(finite, width * height, math.nan)
    return RotatedBoxes(x, y, *rotations(degrees), 0.5 * width, 0.5 * height, area)


def between(v: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.minimum(torch.maximum(v, low), high)


class Window(NamedTuple):
    """The upright rectangle that a polygon is cut with.

    Heights are taken from ``base``, the one inside the rectangle that is next to the origin: what is wholly above or
    below the rectangle then adds exactly 0.
    """

    left: torch.Tensor
    right: torch.Tensor
    top: torch.Tensor
    bottom: torch.Tensor
    base: torch.Tensor

    def under(self, x0, y0, x1, y1, slope, inverse) -> torch.Tensor:
        """The integral of y dx along the edge from (x0, y0) to (x1, y1), x and y kept in the window.

        ``slope`` is dy / dx of the edge, ``inverse`` dx / dy, each 0 where it would be infinite.
        """
        start_x, end_x = between(x0, self.left, self.right), between(x1, self.left, self.right)
        start_y, end_y = y0 + (start_x - x0) * slope, y1 + (end_x - x1) * slope
        first_y, last_y = between(start_y, self.top, self.bottom), between(end_y, self.top, self.bottom)
        low, high = torch.minimum(start_x, end_x), torch.maximum(start_x, end_x)
        # Between these the edge itself is between top and bottom; before and after it is held at one of them.
        enter = between(start_x + (first_y - start_y) * inverse, low, high)
        leave = between(end_x + (last_y - end_y) * inverse, low, high)
        first, last = first_y - self.base, last_y - self.base
        return first * (enter - start_x) + 0.5 * (first + last) * (leave - enter) + last * (end_x - leave)


def iou(a: RotatedBoxes, b: RotatedBoxes) -> torch.Tensor:
    """Of boxes whose shapes broadcast, float64. NaN with a box that is not finite, 0 where neither has an area."""
    # b as a sees it: its centre and its direction, a's width along x and its height along y.
    dx, dy = b.x - a.x, b.y - a.y
    at_x, at_y = dx * a.cos - dy * a.sin, dx * a.sin + dy * a.cos
    c, s = a.cos * b.cos + a.sin * b.sin, a.sin * b.cos - a.cos * b.sin
    # Angles that differ by less than positions resolve are equal; then no slope is steep enough to overflow, and
    # identical boxes have an IoU of exactly 1. (A box turned by 180 degrees is the same box.)
    straight, crossed = s.abs() < 1e-18, c.abs() < 1e-18
    c = torch.where(straight, 1.0, torch.where(crossed, 0.0, c))
    s = torch.where(crossed, 1.0, torch.where(straight, 0.0, s))
    p = torch.where(crossed, 0.0, s / torch.where(crossed, 1.0, c))  # slope of b's width; -q is that of its height
    q = torch.where(straight, 0.0, c / torch.where(straight, 1.0, s))

    # The origin is b's centre: a small box in a large one keeps its digits.
    left, right = -a.half_width - at_x, a.half_width - at_x
    top, bottom = -a.half_height - at_y, a.half_height - at_y
    window = Window(left, right, top, bottom, between(torch.zeros_like(top), top, bottom))
    ux, uy, vx, vy = b.half_width * c, b.half_width * s, -b.half_height * s, b.half_height * c
    ex, ey, fx, fy = ux + vx, uy + vy, ux - vx, uy - vy  # the corners, in order, are -e, f, e, -f
    along = window.under(-ex, -ey, fx, fy, p, q) + window.under(ex, ey, -fx, -fy, p, q)
    across = window.under(fx, fy, ex, ey, -q, -p) + window.under(-fx, -fy, -ex, -ey, -q, -p)
    # Where an area is NaN so is the union, whatever the intersection.
    smaller = torch.minimum(a.area, b.area).nan_to_num(0.0)
    overlap = torch.minimum((0.0 - (along + across)).clamp(min=0), smaller)
    # Apart along one of a's sides, the sum is exactly 0; apart along b's, it could be anything of the size of rounding.
    turned_x, turned_y = at_x * c + at_y * s, at_y * c - at_x * s
    c, s = c.abs(), s.abs()
    apart = (turned_x.abs() >= b.half_width + (a.half_width * c + a.half_height * s)) | (
        turned_y.abs() >= b.half_height + (a.half_width * s + a.half_height * c)
    )
    overlap = torch.where(apart, 0.0, overlap)
    union = a.area + b.area - overlap
    return overlap / torch.where(union == 0, 1.0, union)


def box_iou_rotated(boxes1: torch.Tensor, boxes2: torch.Tensor, elementwise: bool) -> torch.Tensor:
    """IoU of ``boxes1 [N, 5]`` with ``boxes2 [M, 5]`` (centre x, centre y, width, height, degrees): ``[N, M]``.

    ``elementwise``: of each pair of rows, ``[N]``. Half boxes give float32.
    """
    result = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    a, b = rotated_boxes(boxes1), rotated_boxes(boxes2)
    return iou(a if elementwise else a.at((slice(None), None)), b).to(result)
