"""Masks of detections pasted into their image: one kernel that writes every pixel of the result."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run

_VALUES, _FLAGS, _PACKED = range(3)
_ROWS, _COLUMNS = 4, 256  # of a tile
# The interpreter rounds a fused multiply-add twice.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _two_sum(a, b):
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@triton.jit
def _halves(x):
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


@triton.jit
def _sum_to_odd(a, b):
    total, lost = _two_sum(a, b)
    bits = total.to(tl.int64, bitcast=True)
    # Away from or towards zero, by one in the bits.
    step = tl.where((lost > 0) == (total > 0), 1, -1)
    inexact = ((lost < 0) | (lost > 0)) & ((bits & 1) == 0) & (tl.abs(lost) < float("inf"))
    return tl.where(inexact, bits + step, bits).to(tl.float64, bitcast=True)


@triton.jit
def _fused_by_hand(a, b, c):
    if a.dtype == tl.float32:
        found = _sum_to_odd(a.to(tl.float64) * b.to(tl.float64), c.to(tl.float64)).to(tl.float32)
    else:
        product = a * b
        a_high, a_low = _halves(a)
        b_high, b_low = _halves(b)
        lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
        small, rest = _two_sum(c, lost)
        large, more = _two_sum(product, small)
        exact = large + _sum_to_odd(rest, more)
        found = tl.where(tl.abs(exact) < float("inf"), exact, product + c)
    return found


@triton.jit
def _fused(a, b, c, INTERPRETED: tl.constexpr):
    """a * b + c, rounded once; as structops.reference._fma where the interpreter would not."""
    return _fused_by_hand(a, b, c) if INTERPRETED else tl.fma(a, b, c)


@triton.jit
def _range(low, high, scale, image):
    """First pixel of a grown box along one axis, number of pixels, and where they begin and end in the image."""
    half = (high - low) * 0.5 * scale
    centre = (high + low) * 0.5
    limit = 4611686018427387904.0
    first_at = centre - half
    last_at = centre + half
    known = (first_at > -limit) & (first_at < limit) & (last_at > -limit) & (last_at < limit)
    first = tl.where(known, first_at, 0).to(tl.int64)
    last = tl.where(known, last_at, 0).to(tl.int64)
    begin = tl.maximum(first, 0)
    end = tl.minimum(last + 1, image)
    return first, tl.maximum(last - first + 1, 1), begin, tl.where(known, end, begin)


@triton.jit
def _taps(pixel, size, length, like, INTERPRETED: tl.constexpr):
    """The two numbers beside a pixel among ``size``, and their weights, of the type of ``like``."""
    kind = like.dtype
    zero = tl.zeros_like(pixel).to(kind)
    # Of float32, / is an approximation.
    scale = tl.div_rn(size.to(kind), length.to(kind)) if kind == tl.float32 else size.to(kind) / length.to(kind)
    at = _fused(zero + scale, pixel.to(kind) + 0.5, zero - 0.5, INTERPRETED)
    at = tl.where(at < 0, zero, at)
    low = tl.minimum(at.to(tl.float32).to(tl.int64), size - 1).to(tl.int32)  # the floor is a float's, as torch's
    weight = at - low.to(kind)
    weight = tl.where(weight < 0, zero, tl.where(weight > 1, zero + 1, weight))
    high = tl.minimum(low + 1, (size - 1).to(tl.int32))
    same = size == length
    return (
        tl.where(same, pixel.to(tl.int32), low),
        tl.where(same, pixel.to(tl.int32), high),
        tl.where(same, zero + 1, 1 - weight),
        tl.where(same, zero, weight),
    )


@triton.jit
def _numbers(mask, row, column, rows, columns, padding, inside):
    """Of a padded mask."""
    row = row - padding
    column = column - padding
    inside = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return tl.load(mask + row.to(tl.int64) * columns + column, mask=inside, other=0.0)


@triton.jit(
    do_not_specialize=[
        "rows",
        "columns",
        "height",
        "width",
        "padding",
        "row_tiles",
        "column_tiles",
        "scale_bits",
        "bits",
    ]
)
def paste_masks_kernel(
    masks,  # [K, rows, columns]
    boxes,  # [K, 4] (x1, y1, x2, y2)
    out,  # [K, height, width], or [K, height, ceil(width / 8)] bytes; written
    rows,
    columns,
    height,
    width,
    padding,
    row_tiles,
    column_tiles,
    scale_bits,  # of a box, as a double's bits
    bits,  # of the threshold
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    tile = tl.program_id(0)
    k = (tile // column_tiles // row_tiles).to(tl.int64)
    y = (tile // column_tiles % row_tiles * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    x = (tile % column_tiles * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
    scale = scale_bits.to(tl.int64).to(tl.float64, bitcast=True).to(boxes.dtype.element_ty)
    x1 = tl.load(boxes + k * 4)
    y1 = tl.load(boxes + k * 4 + 1)
    x2 = tl.load(boxes + k * 4 + 2)
    y2 = tl.load(boxes + k * 4 + 3)
    x_first, x_length, x_begin, x_end = _range(x1, x2, scale, tl.cast(width, tl.int64))
    y_first, y_length, y_begin, y_end = _range(y1, y2, scale, tl.cast(height, tl.int64))
    value = tl.zeros([ROWS, COLUMNS], masks.dtype.element_ty)
    tile_y = tile // column_tiles % row_tiles * ROWS
    tile_x = tile % column_tiles * COLUMNS
    if (tile_y < y_end) & (tile_y + ROWS > y_begin) & (tile_x < x_end) & (tile_x + COLUMNS > x_begin):
        inside = (y >= y_begin) & (y < y_end) & (x >= x_begin) & (x < x_end)
        padded_rows = tl.cast(rows, tl.int64) + 2 * padding
        padded_columns = tl.cast(columns, tl.int64) + 2 * padding
        top, bottom, top_weight, bottom_weight = _taps(y - y_first, padded_rows, y_length, value, INTERPRETED)
        left, right, left_weight, right_weight = _taps(x - x_first, padded_columns, x_length, value, INTERPRETED)
        mask = masks + k * rows * columns
        a = _numbers(mask, top, left, rows, columns, padding, inside)
        b = _numbers(mask, top, right, rows, columns, padding, inside)
        c = _numbers(mask, bottom, left, rows, columns, padding, inside)
        d = _numbers(mask, bottom, right, rows, columns, padding, inside)
        # Everything of one shape, for the fused multiply-adds.
        zero = tl.zeros_like(value)
        top_weight += zero
        bottom_weight += zero
        left_weight += zero
        right_weight += zero
        if (x_length > 128) | (y_length > 128) | (x_length + y_length > 128):
            first = _fused(a, left_weight, b * right_weight, INTERPRETED)
            second = _fused(c, left_weight, d * right_weight, INTERPRETED)
            found = _fused(first, top_weight, second * bottom_weight, INTERPRETED)
        else:
            found = _fused(top_weight * left_weight, a, (top_weight * right_weight) * b, INTERPRETED)
            found = _fused(bottom_weight * left_weight, c, found, INTERPRETED)
            found = _fused(bottom_weight * right_weight, d, found, INTERPRETED)
        value = tl.where(inside, found, zero)
    if KIND == 0:
        tl.store(out + (k * height + y) * width + x, value, mask=(y < height) & (x < width))
    else:
        threshold = bits.to(tl.int64).to(tl.float64, bitcast=True).to(value.dtype)
        above = (value > threshold) & (x < width)
        if KIND == 1:
            tl.store(out + (k * height + y) * width + x, above.to(tl.int8), mask=(y < height) & (x < width))
        else:
            each = above.to(tl.int32) << (tl.arange(0, COLUMNS) % 8)[None, :]
            byte = tl.sum(tl.reshape(each, [ROWS, COLUMNS // 8, 8]), axis=2)
            row_bytes = (tl.cast(width, tl.int64) + 7) // 8
            at = (tile_x // 8 + tl.arange(0, COLUMNS // 8)).to(tl.int64)[None, :]
            tl.store(out + (k * height + y) * row_bytes + at, byte.to(tl.uint8), mask=(y < height) & (at < row_bytes))


def _launch(masks, boxes, height, width, threshold, packed, padding) -> tuple[torch.Tensor, Launch]:
    count, rows, columns = masks.shape
    masks, boxes = (t.to(torch.promote_types(t.dtype, torch.float32)).contiguous() for t in (masks, boxes))
    if threshold is None:
        out = masks.new_empty(count, 1, height, width)
    else:
        size, dtype = ((width + 7) // 8, torch.uint8) if packed else (width, torch.bool)
        out = masks.new_empty((count, height, size), dtype=dtype)
    tile = min(_COLUMNS, max(16, triton.next_power_of_2(width)))
    row_tiles, column_tiles = triton.cdiv(height, _ROWS), triton.cdiv(width, tile)
    arguments = {
        "masks": masks,
        "boxes": boxes,
        "out": out.view(torch.int8) if out.dtype in (torch.bool, torch.uint8) else out,
        "rows": rows,
        "columns": columns,
        "height": height,
        "width": width,
        "padding": padding,
        "row_tiles": row_tiles,
        "column_tiles": column_tiles,
        "scale_bits": double_bits((columns + 2 * padding) / columns),
        "bits": double_bits(threshold or 0.0),
        "KIND": _VALUES if threshold is None else _PACKED if packed else _FLAGS,
        "ROWS": _ROWS,
        "COLUMNS": tile,
        "INTERPRETED": _INTERPRETED,
    }
    # No fused multiply-adds but those that say so.
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return out, Launch(paste_masks_kernel, (count * row_tiles * column_tiles,), arguments, options)


def paste_masks(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    height: int,
    width: int,
    threshold: float | None,
    packed: bool,
    padding: int,
) -> torch.Tensor:
    """Of ``masks [K, h, w]`` and ``boxes [K, 4]``: ``[K, 1, height, width]`` numbers, or flags ``[K, height, width]``,
    or those 8 to a byte."""
    out, launch = _launch(masks, boxes, height, width, threshold, packed, padding)
    run(masks.device, [launch])
    return out


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.bfloat16, torch.float64):  # halves are widened before
        masks = torch.empty((100, 28, 28), dtype=dtype, device="meta")
        boxes = torch.empty((100, 4), dtype=dtype, device="meta")
        for name, threshold, packed in (("values", None, False), ("flags", 0.5, False), ("packed", 0.5, True)):
            yield f"{str(dtype)[6:]}-{name}", _launch(masks, boxes, 800, 1333, threshold, packed, 1)[1]
