"""Position-sensitive RoI Pool: its tables; the kernels that read them are those of both position-sensitive ops."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run
from structops.triton_kernels._ps_roi import Axes, backward, forward, typical
from structops.triton_kernels._roi_axes import RoiAxes, _box_axis, _mark_tiles


@triton.jit
def _nearest(value):
    """Halves away from zero."""
    whole = tl.where(value < 0.0, tl.ceil(value), tl.floor(value))
    away = tl.where(value < 0.0, -1.0, 1.0)
    return (whole + tl.where(tl.abs(value - whole) >= 0.5, away, 0.0)).to(tl.int64)


@triton.jit(do_not_specialize=["scale_bits", "batch", "height", "width", "pooled_h", "pooled_w", "slots", "slots_y"])
def ps_roi_pool_axes_kernel(
    rois,  # [K, 5] (batch index, x1, y1, x2, y2)
    image,  # [K] int32, written: the image of each RoI; -1: its output is NaN
    spans,  # [K, PH + PW, 3] int32, written: first slot, number of entries, first pixel
    weight,  # [K, slots], written: weight of each entry, rows before columns
    tiles,  # [tiles_y + tiles_x, K] int64, written if TILE_X: bins that reach into a tile, first | end << 32
    roi_stride,
    coordinate_stride,
    scale_bits,
    batch,
    height,
    width,
    pooled_h,
    pooled_w,
    slots,
    slots_y,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    TILE_BLOCK: tl.constexpr,
    P: tl.constexpr,  # bins along the longer axis, rounded up
):
    k = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) == 1
    scale = scale_bits.to(tl.int64).to(tl.float64, bitcast=True)
    valid, low, high = _box_axis(
        rois + k * roi_stride, image + k, columns, coordinate_stride, scale, 0.0, batch, True, -1
    )

    # Follows csrc/ps_roi_align/ps_roi_axis.h: edges of bins are ratios of integers.
    extent = tl.where(columns, width, height).to(tl.int64)
    pooled = tl.where(columns, pooled_w, pooled_h).to(tl.int64)
    box_first = _nearest(low)
    length = tl.maximum(_nearest(high) - box_first, 1)
    p = tl.arange(0, P)
    begin = box_first + p * length // pooled
    end = box_first + ((p + 1) * length + pooled - 1) // pooled
    begin = tl.minimum(tl.maximum(begin, 0), extent - 1)
    end = tl.minimum(tl.maximum(end, 0), extent - 1)
    count = tl.where(p < pooled, tl.maximum(end - begin, 0), 0)
    count = tl.where(valid, count, 0).to(tl.int32)
    first_pixel = tl.where(count > 0, begin, 0).to(tl.int32)
    share = (1.0 / tl.maximum(count, 1).to(tl.float64)).to(weight.dtype.element_ty)
    # Consecutive bins share at most one pixel, so two slots of room per bin keep them apart.
    start = tl.where(columns, slots_y, 0) + 2 * p + first_pixel
    for t in range(tl.max(count, axis=0)):
        tl.store(weight + k * slots + start + t, share, mask=t < count)
    span = spans + (k * (pooled_h + pooled_w) + tl.where(columns, pooled_h, 0) + p) * 3
    tl.store(span, start.to(tl.int32), mask=p < pooled)
    tl.store(span + 1, count, mask=p < pooled)
    tl.store(span + 2, first_pixel, mask=p < pooled)
    if TILE_X > 0:
        none = 2147483647
        first_reached = tl.where(count > 0, first_pixel, none)
        last_pixel = tl.where(count > 0, first_pixel + count - 1, -1)
        _mark_tiles(
            tiles, k, columns, valid, p, first_reached, last_pixel, height, width, TILE_Y, TILE_X, TILE_BLOCK, P
        )


def _axes_of(rois: torch.Tensor, spatial_scale: float, pooled: tuple[int, int]) -> Axes:
    def axes(map_shape: tuple[int, int, int], dtype: torch.dtype, tile: tuple[int, int] | None) -> RoiAxes:
        (pooled_h, pooled_w), (batch, height, width) = pooled, map_shape
        k, device = rois.shape[0], rois.device
        slots_y = height + 2 * pooled_h
        slots = slots_y + width + 2 * pooled_w
        image = torch.empty(k, dtype=torch.int32, device=device)
        spans = torch.empty((k, pooled_h + pooled_w, 3), dtype=torch.int32, device=device)
        weight = torch.empty((k, slots), dtype=dtype, device=device)
        tiles = None
        tile_y, tile_x = tile or (0, 0)
        if tile is not None:
            rows = triton.cdiv(height, tile_y) + triton.cdiv(width, tile_x)
            tiles = torch.empty((rows, k), dtype=torch.int64, device=device)
        p = triton.next_power_of_2(max(pooled_h, pooled_w))
        arguments = {
            "rois": rois,
            "image": image,
            "spans": spans,
            "weight": weight,
            "tiles": tiles,
            "roi_stride": rois.stride(0),
            "coordinate_stride": rois.stride(1),
            "scale_bits": double_bits(spatial_scale),
            "batch": batch,
            "height": height,
            "width": width,
            "pooled_h": pooled_h,
            "pooled_w": pooled_w,
            "slots": slots,
            "slots_y": slots_y,
            "TILE_Y": tile_y,
            "TILE_X": tile_x,
            "TILE_BLOCK": max(1, 512 // p),
            "P": p,
        }
        options = {"num_warps": max(1, min(8, p // 64)), "enable_fp_fusion": False}
        launch = Launch(ps_roi_pool_axes_kernel, (k, 2), arguments, options)
        return RoiAxes(image, spans, None, weight, tiles, slots_y, 0, launch)

    return axes


def ps_roi_pool(
    input: torch.Tensor, rois: torch.Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> torch.Tensor:
    """``input [N, C * PH * PW, H, W]`` at ``rois [K, 5]``: ``[K, C, PH, PW]``."""
    pooled = (pooled_height, pooled_width)
    out, launches = forward(input, _axes_of(rois, spatial_scale, pooled), len(rois), pooled)
    run(input.device, launches)
    return out


def ps_roi_pool_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """Gradient of :func:`ps_roi_pool` with respect to its input: ``[K, C, PH, PW]`` to ``[N, C * PH * PW, H, W]``."""
    axes_of = _axes_of(rois, spatial_scale, (pooled_height, pooled_width))
    grad_input, launches = backward(grad, axes_of, (batch_size, channels, height, width))
    run(grad.device, launches)
    return grad_input


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of a typical call, named: what has to compile for every target without a GPU at hand."""
    yield from typical(lambda rois: _axes_of(rois, 1 / 16, (7, 7)))
