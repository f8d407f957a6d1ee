"""The arithmetic of one pair of boxes, of its gradient, and of what a box brings along: csrc/box_iou/box_iou_pair.h.

A *side* is a box as six values (x1, y1, x2, y2, area, angle); the angle is the arc tangent of width / height, for the
complete form alone. The gradient of a side has the same six.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

PLAIN = tl.constexpr(0)
GENERALIZED = tl.constexpr(1)
DISTANCE = tl.constexpr(2)
COMPLETE = tl.constexpr(3)
XYXY = tl.constexpr(0)
XYWH = tl.constexpr(1)
_ASPECT_SCALE = tl.constexpr(4 / math.pi**2)


@triton.jit
def _divide(a, b):
    """Rounded once. The plain operator on float32 is a faster, inexact division."""
    return tl.div_rn(a, b) if a.dtype == tl.float32 else a / b


@triton.jit
def _clamped(v):
    """At 0 from below; NaN stays, which tl.maximum does not promise."""
    return tl.where(v < 0, 0, v)


@triton.jit
def _side(boxes, angles, i, mask, FORMAT: tl.constexpr):
    """Boxes ``i`` of ``boxes [., 4]``; zeros where masked. A NaN coordinate makes the area NaN, hence every value."""
    a = tl.load(boxes + 4 * i, mask=mask, other=0.0)
    b = tl.load(boxes + 4 * i + 1, mask=mask, other=0.0)
    c = tl.load(boxes + 4 * i + 2, mask=mask, other=0.0)
    d = tl.load(boxes + 4 * i + 3, mask=mask, other=0.0)
    angle = a * 0
    if angles is not None:
        angle = tl.load(angles + i, mask=mask, other=0.0)
    if FORMAT == XYXY:
        return a, b, c, d, (c - a) * (d - b), angle
    right = c
    below = d
    x1 = a
    y1 = b
    if FORMAT != XYWH:
        right = c * 0.5
        below = d * 0.5
        x1 = a - right
        y1 = b - below
    x2 = a + right
    y2 = b + below
    numbers = (x1 == x1) & (y1 == y1) & (x2 == x2) & (y2 == y2)
    return x1, y1, x2, y2, tl.where(numbers, c * d, float("nan")), angle


@triton.jit
def _overlap(a1, a2, b1, b2):
    """Signed length of the intersection along an axis."""
    return tl.where(a2 < b2, a2, b2) - tl.where(a1 > b1, a1, b1)


@triton.jit
def _overlap_or_nan(a1, a2, b1, b2):
    """The same, NaN where any of the four is: in the gradient it decides what is clamped away."""
    return tl.where((a2 < b2) | (a2 != a2), a2, b2) - tl.where((a1 > b1) | (a1 != a1), a1, b1)


@triton.jit
def _hull(a1, a2, b1, b2):
    return tl.where(a2 > b2, a2, b2) - tl.where(a1 < b1, a1, b1)


@triton.jit
def _aspect(a_angle, b_angle, iou, eps):
    """The angle between the two diagonals, the term that measures it, and that term's weight."""
    turn = a_angle - b_angle
    scale = tl.full([], _ASPECT_SCALE, tl.float64).to(turn.dtype)
    term = scale * (turn * turn)
    return turn, term, _divide(term, 1 - iou + term + eps)


@triton.jit
def _pair_value(ax1, ay1, ax2, ay2, a_area, a_angle, bx1, by1, bx2, by2, b_area, b_angle, eps, KIND: tl.constexpr):
    """Each operation rounded once, in the order of the definition."""
    width = _clamped(_overlap(ax1, ax2, bx1, bx2))
    height = _clamped(_overlap(ay1, ay2, by1, by2))
    intersection = width * height
    joint = a_area + b_area - intersection
    value = _divide(intersection, joint)
    if KIND != PLAIN:
        iou = value
        hull_width = _clamped(_hull(ax1, ax2, bx1, bx2))
        hull_height = _clamped(_hull(ay1, ay2, by1, by2))
        if KIND == GENERALIZED:
            hull = hull_width * hull_height
            value = iou - _divide(hull - joint, hull)
        else:
            diagonal = hull_width * hull_width + hull_height * hull_height + eps
            dx = (ax1 + ax2) * 0.5 - (bx1 + bx2) * 0.5
            dy = (ay1 + ay2) * 0.5 - (by1 + by2) * 0.5
            value = iou - _divide(dx * dx + dy * dy, diagonal)
            if KIND == COMPLETE:
                _, term, alpha = _aspect(a_angle, b_angle, iou, eps)
                value = value - alpha * term
    return value


@triton.jit
def _of_larger(a, b, grad):
    """The gradient of a maximum of a and b, as theirs; equals take half each."""
    share = tl.where(a == b, grad * 0.5, grad)
    return tl.where(a < b, 0, share), tl.where(a > b, 0, share)


@triton.jit
def _of_smaller(a, b, grad):
    to_b, to_a = _of_larger(a, b, grad)
    return to_a, to_b


@triton.jit
def _pair_gradient(
    ax1, ay1, ax2, ay2, a_area, a_angle, bx1, by1, bx2, by2, b_area, b_angle, grad, eps, KIND: tl.constexpr
):
    """What the gradient of the pair's value gives to either side: twelve values."""
    open_width = _overlap_or_nan(ax1, ax2, bx1, bx2)
    open_height = _overlap_or_nan(ay1, ay2, by1, by2)
    width = _clamped(open_width)
    height = _clamped(open_height)
    intersection = width * height
    joint = a_area + b_area - intersection
    iou = _divide(intersection, joint)
    to_joint = -grad * _divide(iou, joint)
    to_a_angle = grad * 0
    to_b_angle = grad * 0
    to_hull_width = grad * 0
    to_hull_height = grad * 0
    to_x = grad * 0
    to_y = grad * 0
    hull_open_width = _hull(ax1, ax2, bx1, bx2)
    hull_open_height = _hull(ay1, ay2, by1, by2)
    if KIND != PLAIN:
        hull_width = _clamped(hull_open_width)
        hull_height = _clamped(hull_open_height)
        if KIND == GENERALIZED:
            hull = hull_width * hull_height
            to_outside = _divide(-grad, hull)
            to_hull = grad * _divide(_divide(hull - joint, hull), hull) + to_outside
            to_joint = to_joint - to_outside
            to_hull_width = to_hull * hull_height
            to_hull_height = to_hull * hull_width
        else:
            diagonal = hull_width * hull_width + hull_height * hull_height + eps
            dx = (ax1 + ax2) * 0.5 - (bx1 + bx2) * 0.5
            dy = (ay1 + ay2) * 0.5 - (by1 + by2) * 0.5
            to_diagonal = grad * _divide(_divide(dx * dx + dy * dy, diagonal), diagonal)
            to_hull_width = to_diagonal * (2 * hull_width)
            to_hull_height = to_diagonal * (2 * hull_height)
            to_distance = _divide(-grad, diagonal)
            to_x = to_distance * dx  # half of the centre's gradient, to either corner
            to_y = to_distance * dy
        to_hull_width = tl.where(hull_open_width > 0, to_hull_width, 0)
        to_hull_height = tl.where(hull_open_height > 0, to_hull_height, 0)
        if KIND == COMPLETE:  # alpha is a constant, as its authors and torchvision have it
            turn, _, alpha = _aspect(a_angle, b_angle, iou, eps)
            scale = tl.full([], _ASPECT_SCALE, tl.float64).to(turn.dtype)
            to_a_angle = -grad * alpha * (scale * (2 * turn))
            to_b_angle = -to_a_angle
    to_intersection = _divide(grad, joint) - to_joint
    to_width = tl.where(open_width > 0, to_intersection * height, 0)
    to_height = tl.where(open_height > 0, to_intersection * width, 0)
    to_ax2, to_bx2 = _of_smaller(ax2, bx2, to_width)
    to_ay2, to_by2 = _of_smaller(ay2, by2, to_height)
    to_ax1, to_bx1 = _of_larger(ax1, bx1, -to_width)
    to_ay1, to_by1 = _of_larger(ay1, by1, -to_height)
    if KIND != PLAIN:
        more_ax2, more_bx2 = _of_larger(ax2, bx2, to_hull_width)
        more_ay2, more_by2 = _of_larger(ay2, by2, to_hull_height)
        more_ax1, more_bx1 = _of_smaller(ax1, bx1, -to_hull_width)
        more_ay1, more_by1 = _of_smaller(ay1, by1, -to_hull_height)
        to_ax1 += more_ax1 + to_x
        to_ay1 += more_ay1 + to_y
        to_ax2 += more_ax2 + to_x
        to_ay2 += more_ay2 + to_y
        to_bx1 += more_bx1 - to_x
        to_by1 += more_by1 - to_y
        to_bx2 += more_bx2 - to_x
        to_by2 += more_by2 - to_y
    return to_ax1, to_ay1, to_ax2, to_ay2, to_joint, to_a_angle, to_bx1, to_by1, to_bx2, to_by2, to_joint, to_b_angle


@triton.jit
def _store_gradient(boxes, grad, i, mask, x1, y1, x2, y2, area, angle, KIND: tl.constexpr, FORMAT: tl.constexpr):
    """Gradients of sides as those of boxes ``i``, in the boxes' own format."""
    a = tl.load(boxes + 4 * i, mask=mask, other=0.0)
    b = tl.load(boxes + 4 * i + 1, mask=mask, other=0.0)
    c = tl.load(boxes + 4 * i + 2, mask=mask, other=0.0)
    d = tl.load(boxes + 4 * i + 3, mask=mask, other=0.0)
    width = c
    height = d
    if FORMAT == XYXY:
        width = c - a
        height = d - b
    to_width = area * height
    to_height = area * width
    if KIND == COMPLETE:
        ratio = _divide(width, height)
        to_ratio = _divide(angle, ratio * ratio + 1)
        to_width += _divide(to_ratio, height)
        to_height -= to_ratio * _divide(ratio, height)
    if FORMAT == XYXY:
        x1 -= to_width
        y1 -= to_height
    elif FORMAT == XYWH:
        x1 += x2
        y1 += y2
    else:
        centre_x = x1 + x2
        centre_y = y1 + y2
        x2 = (x2 - x1) * 0.5
        y2 = (y2 - y1) * 0.5
        x1 = centre_x
        y1 = centre_y
    tl.store(grad + 4 * i, x1, mask=mask)
    tl.store(grad + 4 * i + 1, y1, mask=mask)
    tl.store(grad + 4 * i + 2, x2 + to_width, mask=mask)
    tl.store(grad + 4 * i + 3, y2 + to_height, mask=mask)
