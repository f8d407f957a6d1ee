"""Anchors, default boxes and grid points in Triton: a launch for each level, every element of the rows by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run

_BLOCK = 1024  # elements of a program: 8 a thread, so stores are 16 bytes


@triton.jit
def _place(rows, width, cells, COLUMNS: tl.constexpr, LARGE: tl.constexpr, BLOCK: tl.constexpr):
    """Of the elements of a program: offset, whether inside, pixel's row and column, cell, and column of the output."""
    pid = tl.program_id(0)
    offset = (pid.to(tl.int64) if LARGE else pid) * BLOCK + tl.arange(0, BLOCK)
    row = offset // COLUMNS
    pixel = row // cells
    y = pixel // width
    return offset, row < rows, y, pixel - y * width, row - pixel * cells, offset % COLUMNS


@triton.jit
def generate_anchors_kernel(
    out,  # [rows, 4]
    cell_anchors,  # [cells, 4]
    rows,
    width,
    cells,
    stride_y,
    stride_x,
    LARGE: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset, mask, y, x, cell, column = _place(rows, width, cells, 4, LARGE, BLOCK)
    move = tl.where(column % 2 == 0, x.to(tl.int64) * stride_x, y.to(tl.int64) * stride_y)
    # An integer becomes a half by way of float32, as in torch.
    move = move.to(COMPUTE).to(out.dtype.element_ty).to(COMPUTE)
    base = tl.load(cell_anchors + cell * 4 + column, mask=mask, other=0.0).to(COMPUTE)
    tl.store(out + offset, (base + move).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["divide_y_bits", "divide_x_bits", "image_height", "image_width"])
def default_boxes_kernel(
    out,  # [rows, 4]
    pairs,  # [cells, 2], of the type of out
    rows,
    width,
    cells,
    divide_y_bits,
    divide_x_bits,
    image_height,
    image_width,
    CLIP: tl.constexpr,
    LARGE: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset, mask, y, x, cell, column = _place(rows, width, cells, 4, LARGE, BLOCK)
    horizontal = column % 2 == 0
    by_y = divide_y_bits.to(tl.int64).to(tl.float64, bitcast=True).to(tl.float32)
    by_x = divide_x_bits.to(tl.int64).to(tl.float64, bitcast=True).to(tl.float32)
    # Divided in float32 whatever the type, as torchvision does.
    centre = tl.math.div_rn(tl.where(horizontal, x, y).to(tl.float32) + 0.5, tl.where(horizontal, by_x, by_y))
    size = tl.load(pairs + cell * 2 + column % 2, mask=mask, other=0.0)
    if CLIP:
        size = tl.where(size < 0.0, 0.0, tl.where(size > 1.0, 1.0, size))  # keeps NaN
    half = size * 0.5
    image = tl.where(horizontal, image_width.to(tl.int64), image_height.to(tl.int64)).to(COMPUTE)
    edge = centre.to(COMPUTE) + tl.where(column < 2, -half, half)
    tl.store(out + offset, edge * image, mask=mask)


@triton.jit(do_not_specialize=["stride_y", "stride_x", "offset_bits"])
def yolo_grid_kernel(
    out,  # [rows, COLUMNS]
    rows,
    width,
    stride_y,
    stride_x,
    offset_bits,
    COLUMNS: tl.constexpr,
    LARGE: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset, mask, y, x, _cell, column = _place(rows, width, 1, COLUMNS, LARGE, BLOCK)
    horizontal = column % 2 == 0
    stride = tl.where(horizontal, stride_x.to(tl.int64), stride_y.to(tl.int64)).to(COMPUTE)
    shift = offset_bits.to(tl.int64).to(tl.float64, bitcast=True).to(COMPUTE)
    point = (tl.where(horizontal, x, y).to(COMPUTE) + shift) * stride
    tl.store(out + offset, tl.where(column < 2, point, stride).to(out.dtype.element_ty), mask=mask)


def _levels(
    out: torch.Tensor, kernel, grid_sizes: Sequence[int], cells: Sequence[int], of_level: Sequence[dict]
) -> list[Launch]:
    """One launch for each level, into its rows of ``out``. of_level: arguments beyond the common ones."""
    launches, first = [], 0
    for height, width, count, arguments in zip(grid_sizes[::2], grid_sizes[1::2], cells, of_level, strict=True):
        rows = height * width * count
        common = {
            "out": out[first : first + rows],
            "rows": rows,
            "width": width,
            "LARGE": rows * out.shape[1] > 2**31 - _BLOCK,
            "COMPUTE": tl.float64 if out.dtype == torch.float64 else tl.float32,
            "BLOCK": _BLOCK,
        }
        grid = (triton.cdiv(rows * out.shape[1], _BLOCK),)
        # No fused multiply-adds: every operation rounds where the definition does.
        options = {"num_warps": 4, "enable_fp_fusion": False}
        launches.append(Launch(kernel, grid, common | arguments, options))
        first += rows
    return launches


def _rows(grid_sizes: Sequence[int], cells: Sequence[int]) -> int:
    return sum(h * w * c for h, w, c in zip(grid_sizes[::2], grid_sizes[1::2], cells, strict=True))


def _generate_anchors(cell_anchors, grid_sizes, strides) -> tuple[torch.Tensor, list[Launch]]:
    cells = [c.shape[0] for c in cell_anchors]
    out = cell_anchors[0].new_empty((_rows(grid_sizes, cells), 4))
    of_level = [
        {"cell_anchors": c.contiguous(), "cells": c.shape[0], "stride_y": y, "stride_x": x}
        for c, y, x in zip(cell_anchors, strides[::2], strides[1::2], strict=True)
    ]
    return out, _levels(out, generate_anchors_kernel, grid_sizes, cells, of_level)


def generate_anchors(cell_anchors: list[torch.Tensor], grid_sizes: list[int], strides: list[int]) -> torch.Tensor:
    """Cell anchors ``[A, 4]`` of each level about each of its pixels: ``[sum of H * W * A, 4]``."""
    out, launches = _generate_anchors(cell_anchors, grid_sizes, strides)
    run(out.device, launches)
    return out


def _default_boxes(wh_pairs, grid_sizes, image_size, steps, clip) -> tuple[torch.Tensor, list[Launch]]:
    cells = [p.shape[0] for p in wh_pairs]
    dtype = torch.promote_types(wh_pairs[0].dtype, torch.float32)
    out = wh_pairs[0].new_empty((_rows(grid_sizes, cells), 4), dtype=dtype)
    of_level = []
    for level, pairs in enumerate(wh_pairs):
        divisors = [side / steps[level] for side in image_size] if steps else grid_sizes[2 * level : 2 * level + 2]
        of_level.append(
            {
                "pairs": pairs.to(dtype).contiguous(),
                "cells": pairs.shape[0],
                "divide_y_bits": double_bits(divisors[0]),
                "divide_x_bits": double_bits(divisors[1]),
                "image_height": image_size[0],
                "image_width": image_size[1],
                "CLIP": clip,
            }
        )
    return out, _levels(out, default_boxes_kernel, grid_sizes, cells, of_level)


def default_boxes(
    wh_pairs: list[torch.Tensor], grid_sizes: list[int], image_size: list[int], steps: list[float], clip: bool
) -> torch.Tensor:
    """Boxes of the sizes ``[A, 2]`` of each level about its pixels' centres: ``[sum of H * W * A, 4]``."""
    out, launches = _default_boxes(wh_pairs, grid_sizes, image_size, steps, clip)
    run(out.device, launches)
    return out


def _yolo_grid(like, grid_sizes, strides, offset, with_stride) -> tuple[torch.Tensor, list[Launch]]:
    cells = [1] * (len(grid_sizes) // 2)
    columns = 4 if with_stride else 2
    out = like.new_empty((_rows(grid_sizes, cells), columns))
    of_level = [
        {"stride_y": y, "stride_x": x, "offset_bits": double_bits(offset), "COLUMNS": columns}
        for y, x in zip(strides[::2], strides[1::2], strict=True)
    ]
    return out, _levels(out, yolo_grid_kernel, grid_sizes, cells, of_level)


def yolo_grid(
    like: torch.Tensor, grid_sizes: list[int], strides: list[int], offset: float, with_stride: bool
) -> torch.Tensor:
    """``(pixel + offset) * stride`` of each pixel of each level: ``[sum of H * W, 2]``, or 4 columns with strides."""
    out, launches = _yolo_grid(like, grid_sizes, strides, offset, with_stride)
    run(out.device, launches)
    return out


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    sizes = [100, 167]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        name = str(dtype)[6:]
        cells, pairs = (torch.empty((9, n), dtype=dtype, device="meta") for n in (4, 2))
        yield from ((f"anchors-{name}", launch) for launch in _generate_anchors([cells], sizes, [8, 8])[1])
        # Halves are widened first; the other targets' compilers are tried on the name of one.
        yield from ((f"boxes-{name}", x) for x in _default_boxes([pairs], sizes, [800, 1333], [], True)[1])
        yield from ((f"points-{name}", launch) for launch in _yolo_grid(cells, sizes, [8, 8], 0.5, True)[1])
