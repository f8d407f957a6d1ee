"""The kernels of decode_boxes and encode_boxes, forward and backward.

Exponentials and logarithms come in: torch's own, taken before the one launch that does all the rest. In the backward a
lane has an anchor, and adds over images and classes in order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from structops.triton_kernels._box_pair import _divide

DELTAS = tl.constexpr(0)
DISTANCES = tl.constexpr(1)
PIXEL_DISTANCES = tl.constexpr(2)
CELLS = tl.constexpr(3)


@triton.jit
def _four(boxes, i, mask):
    a = tl.load(boxes + 4 * i, mask=mask, other=0.0)
    b = tl.load(boxes + 4 * i + 1, mask=mask, other=0.0)
    c = tl.load(boxes + 4 * i + 2, mask=mask, other=0.0)
    d = tl.load(boxes + 4 * i + 3, mask=mask, other=0.0)
    return a, b, c, d


@triton.jit
def _put_four(boxes, i, mask, a, b, c, d):
    tl.store(boxes + 4 * i, a, mask=mask)
    tl.store(boxes + 4 * i + 1, b, mask=mask)
    tl.store(boxes + 4 * i + 2, c, mask=mask)
    tl.store(boxes + 4 * i + 3, d, mask=mask)


@triton.jit
def _two(pairs, i, mask, like):
    """Two of a pair of values, or zeros where a coding has none."""
    a = like * 0
    b = like * 0
    if pairs is not None:
        a = tl.load(pairs + 2 * i, mask=mask, other=0.0)
        b = tl.load(pairs + 2 * i + 1, mask=mask, other=0.0)
    return a, b


@triton.jit
def _anchor(anchors, i, mask, CODING: tl.constexpr):
    """Centre and size; distances round the centre in another way."""
    x1, y1, x2, y2 = _four(anchors, i, mask)
    width = x2 - x1
    height = y2 - y1
    if (CODING == DISTANCES) | (CODING == PIXEL_DISTANCES):
        return 0.5 * (x1 + x2), 0.5 * (y1 + y2), width, height
    else:
        return x1 + 0.5 * width, y1 + 0.5 * height, width, height


@triton.jit
def _sigmoid_of(e):
    """From exp(-x)."""
    return _divide(tl.full(e.shape, 1.0, e.dtype), 1 + e)


@triton.jit
def _number(bits, like):
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(like.dtype)


@triton.jit
def _constant(VALUE: tl.constexpr, like):
    return tl.full([], VALUE, tl.float64).to(like.dtype)


@triton.jit(do_not_specialize=["count", "anchor_count", "classes", "stride_bits"])
def code_boxes_kernel(
    boxes,  # [R, C, 4], to be decoded or encoded
    anchors,  # [A, 4]
    offsets,  # [R, C, 2] exponentials (decoding) or logarithms, or None
    sizes,  # [R, C, 2] exponentials (decoding) or logarithms, or None
    out,  # [R, C, 4], written
    count,
    anchor_count,
    classes,
    stride_bits,
    DECODE: tl.constexpr,
    CODING: tl.constexpr,
    WX: tl.constexpr,
    WY: tl.constexpr,
    WW: tl.constexpr,
    WH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    x, y, width, height = _anchor(anchors, i // classes % anchor_count, mask, CODING)
    a, b, c, d = _four(boxes, i, mask)
    offset_x, offset_y = _two(offsets, i, mask, a)
    size_x, size_y = _two(sizes, i, mask, a)
    stride = _number(stride_bits, a)
    if DECODE:
        if (CODING == DELTAS) | (CODING == CELLS):
            if CODING == DELTAS:
                centre_x = _divide(a, _constant(WX, a)) * width + x
                centre_y = _divide(b, _constant(WY, b)) * height + y
            else:
                centre_x = (_sigmoid_of(offset_x) - 0.5) * stride + x
                centre_y = (_sigmoid_of(offset_y) - 0.5) * stride + y
            half_width = 0.5 * (size_x * width)
            half_height = 0.5 * (size_y * height)
            a = centre_x - half_width
            b = centre_y - half_height
            c = centre_x + half_width
            d = centre_y + half_height
        else:
            if CODING == DISTANCES:
                a = a * width
                b = b * height
                c = c * width
                d = d * height
            a = x - a
            b = y - b
            c = x + c
            d = y + d
    else:
        if CODING == DELTAS:
            centre_x = a + 0.5 * (c - a)
            centre_y = b + 0.5 * (d - b)
            a = _divide(_constant(WX, a) * (centre_x - x), width)
            b = _divide(_constant(WY, b) * (centre_y - y), height)
            c = _constant(WW, a) * size_x
            d = _constant(WH, b) * size_y
        elif CODING == CELLS:
            a = offset_x
            b = offset_y
            c = size_x
            d = size_y
        else:
            a = x - a
            b = y - b
            c = c - x
            d = d - y
            if CODING == DISTANCES:
                a = _divide(a, width)
                b = _divide(b, height)
                c = _divide(c, width)
                d = _divide(d, height)
    _put_four(out, i, mask, a, b, c, d)


@triton.jit
def _decode_gradient(
    x,
    y,
    width,
    height,
    a,
    b,
    c,
    d,
    offset_x,
    offset_y,
    size_x,
    size_y,
    g1,
    g2,
    g3,
    g4,
    clip,
    stride,
    CODING: tl.constexpr,
    WX: tl.constexpr,
    WY: tl.constexpr,
    WW: tl.constexpr,
    WH: tl.constexpr,
):
    """Of one code, four values, and of its anchor's centre and size, four more."""
    to_x = g1 + g3
    to_y = g2 + g4
    to_width = g1 * 0
    to_height = g1 * 0
    if (CODING == DELTAS) | (CODING == CELLS):
        half_width = 0.5 * (g3 - g1)
        half_height = 0.5 * (g4 - g2)
        to_width = half_width * size_x
        to_height = half_height * size_y
        to_c = half_width * width * size_x
        to_d = half_height * height * size_y
        if CODING == DELTAS:
            wx = _constant(WX, a)
            wy = _constant(WY, a)
            ww = _constant(WW, a)
            wh = _constant(WH, a)
            to_width += to_x * _divide(a, wx)
            to_height += to_y * _divide(b, wy)
            to_a = _divide(to_x * width, wx)
            to_b = _divide(to_y * height, wy)
            to_c = tl.where(_divide(c, ww) < clip, _divide(to_c, ww), 0)
            to_d = tl.where(_divide(d, wh) < clip, _divide(to_d, wh), 0)
        else:
            sx = _sigmoid_of(offset_x)
            sy = _sigmoid_of(offset_y)
            to_a = to_x * stride * (sx * (1 - sx))
            to_b = to_y * stride * (sy * (1 - sy))
            to_c = tl.where(c < clip, to_c, 0)
            to_d = tl.where(d < clip, to_d, 0)
    elif CODING == DISTANCES:
        to_width = g3 * c - g1 * a
        to_height = g4 * d - g2 * b
        to_a = -g1 * width
        to_b = -g2 * height
        to_c = g3 * width
        to_d = g4 * height
    else:
        to_a = -g1
        to_b = -g2
        to_c = g3
        to_d = g4
    return to_a, to_b, to_c, to_d, to_x, to_y, to_width, to_height


@triton.jit
def _encode_gradient(
    x,
    y,
    width,
    height,
    a,
    b,
    c,
    d,
    g1,
    g2,
    g3,
    g4,
    stride,
    CODING: tl.constexpr,
    WX: tl.constexpr,
    WY: tl.constexpr,
    WW: tl.constexpr,
    WH: tl.constexpr,
):
    """Of one box, four values, and of its anchor's centre and size, four more."""
    to_anchor_width = g1 * 0
    to_anchor_height = g1 * 0
    if (CODING == DELTAS) | (CODING == CELLS):
        box_width = c - a
        box_height = d - b
        box_x = a + 0.5 * box_width
        box_y = b + 0.5 * box_height
        if CODING == DELTAS:
            wx = _constant(WX, a)
            wy = _constant(WY, a)
            to_x = _divide(g1, width) * wx
            to_y = _divide(g2, height) * wy
            g3 = g3 * _constant(WW, a)
            g4 = g4 * _constant(WH, a)
            to_anchor_width = -g1 * _divide(_divide(wx * (box_x - x), width), width)
            to_anchor_height = -g2 * _divide(_divide(wy * (box_y - y), height), height)
        else:
            u = _divide(box_x - x, stride) + 0.5
            v = _divide(box_y - y, stride) + 0.5
            to_x = _divide(_divide(g1, u * (1 - u)), stride)
            to_y = _divide(_divide(g2, v * (1 - v)), stride)
        to_anchor_x = -to_x
        to_anchor_y = -to_y
        to_anchor_width -= _divide(g3, width)
        to_anchor_height -= _divide(g4, height)
        to_width = _divide(g3, box_width)
        to_height = _divide(g4, box_height)
        to_a = 0.5 * to_x - to_width
        to_b = 0.5 * to_y - to_height
        to_c = 0.5 * to_x + to_width
        to_d = 0.5 * to_y + to_height
    else:
        if CODING == DISTANCES:
            g1 = _divide(g1, width)
            g2 = _divide(g2, height)
            g3 = _divide(g3, width)
            g4 = _divide(g4, height)
            to_anchor_width = -(g1 * _divide(x - a, width) + g3 * _divide(c - x, width))
            to_anchor_height = -(g2 * _divide(y - b, height) + g4 * _divide(d - y, height))
        to_anchor_x = g1 - g3
        to_anchor_y = g2 - g4
        to_a = -g1
        to_b = -g2
        to_c = g3
        to_d = g4
    return to_a, to_b, to_c, to_d, to_anchor_x, to_anchor_y, to_anchor_width, to_anchor_height


@triton.jit(do_not_specialize=["batch", "anchor_count", "classes", "clip_bits", "stride_bits"])
def code_boxes_backward_kernel(
    grad,  # [R, C, 4]
    boxes,  # [R, C, 4], what was decoded or encoded
    anchors,  # [A, 4]
    offsets,  # [R, C, 2] exponentials, or None
    sizes,  # [R, C, 2] exponentials, or None
    grad_boxes,  # [R, C, 4], written
    grad_anchors,  # [A, 4], written
    batch,
    anchor_count,
    classes,
    clip_bits,
    stride_bits,
    DECODE: tl.constexpr,
    CODING: tl.constexpr,
    WX: tl.constexpr,
    WY: tl.constexpr,
    WW: tl.constexpr,
    WH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < anchor_count
    x, y, width, height = _anchor(anchors, row, mask, CODING)
    clip = _number(clip_bits, x)
    stride = _number(stride_bits, x)
    sum_x = tl.zeros([BLOCK], x.dtype)
    sum_y = tl.zeros([BLOCK], x.dtype)
    sum_width = tl.zeros([BLOCK], x.dtype)
    sum_height = tl.zeros([BLOCK], x.dtype)
    for step in range(0, batch * classes):
        i = (step // classes * tl.cast(anchor_count, tl.int64) + row) * classes + step % classes
        a, b, c, d = _four(boxes, i, mask)
        g1, g2, g3, g4 = _four(grad, i, mask)
        if DECODE:
            offset_x, offset_y = _two(offsets, i, mask, a)
            size_x, size_y = _two(sizes, i, mask, a)
            to_a, to_b, to_c, to_d, to_x, to_y, to_width, to_height = _decode_gradient(
                x,
                y,
                width,
                height,
                a,
                b,
                c,
                d,
                offset_x,
                offset_y,
                size_x,
                size_y,
                g1,
                g2,
                g3,
                g4,
                clip,
                stride,
                CODING,
                WX,
                WY,
                WW,
                WH,
            )
        else:
            to_a, to_b, to_c, to_d, to_x, to_y, to_width, to_height = _encode_gradient(
                x, y, width, height, a, b, c, d, g1, g2, g3, g4, stride, CODING, WX, WY, WW, WH
            )
        _put_four(grad_boxes, i, mask, to_a, to_b, to_c, to_d)
        sum_x += to_x
        sum_y += to_y
        sum_width += to_width
        sum_height += to_height
    _put_four(
        grad_anchors,
        row,
        mask,
        0.5 * sum_x - sum_width,
        0.5 * sum_y - sum_height,
        0.5 * sum_x + sum_width,
        0.5 * sum_y + sum_height,
    )
