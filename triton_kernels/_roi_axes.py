"""Where each RoI samples each axis of the map, as tables that the RoI kernels read.

An RoI's output is ``Wy . F . Wx^T`` with one row of weights per bin and axis. The tables hold those rows without their
zeros: a few hundred bytes per RoI beside the tens of kilobytes of its output. One warp per RoI and axis computes them,
once for all channels. That keeps double precision, which consumer GPUs run 64 times slower than single, out of the
kernels that move the data, and merges the samples that share a pixel: at a spacing of one pixel, 2 x 2 samples
touch 9 pixels and not 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits

# Bins have at most two pixels per sample, so up to here a bin's taps have fixed places, zero-padded, and the kernels
# that read them are free of loops; every other sampling ratio is a loop bounded by the span's count.
STATIC_SAMPLES = 2


@triton.jit
def _box_axis(roi, image, columns, coordinate_stride, scale, offset, batch, on_map, otherwise):
    """Whether a box is finite and its image there, and its edges along an axis in feature pixels; notes the image.

    on_map: whether the RoI is on a map at all; otherwise: the image noted where it is not, or is not finite.
    """
    picture = tl.load(roi).to(tl.float64)
    x1 = tl.load(roi + coordinate_stride).to(tl.float64) * scale - offset
    y1 = tl.load(roi + 2 * coordinate_stride).to(tl.float64) * scale - offset
    x2 = tl.load(roi + 3 * coordinate_stride).to(tl.float64) * scale - offset
    y2 = tl.load(roi + 4 * coordinate_stride).to(tl.float64) * scale - offset
    finite = ((x1 - x1) == 0.0) & ((y1 - y1) == 0.0) & ((x2 - x2) == 0.0) & ((y2 - y2) == 0.0)
    valid = finite & (picture >= 0.0) & (picture < batch) & on_map
    if not columns:
        tl.store(image, tl.where(valid, tl.where(valid, picture, 0.0).to(tl.int32), otherwise))
    low = tl.where(valid, tl.where(columns, x1, y1), 0.0)
    high = tl.where(valid, tl.where(columns, x2, y2), 0.0)
    low = tl.minimum(tl.maximum(low, -1073741824.0), 1073741824.0)  # 2^30: counts below fit an int32 or are cut
    high = tl.minimum(tl.maximum(high, -1073741824.0), 1073741824.0)
    return valid, low, high


@triton.jit
def _mark_tiles(
    tiles,
    k,
    columns,
    valid,
    p,
    first_pixel,
    last_pixel,
    height,
    width,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    TILE_BLOCK: tl.constexpr,
    P: tl.constexpr,
):
    """Notes for every tile along an axis which bins p reach into it."""
    tile_size = tl.where(columns, TILE_X, TILE_Y)
    tiles_y = tl.cdiv(height, TILE_Y)
    tile_count = tl.where(columns, tl.cdiv(width, TILE_X), tiles_y)
    rois_count = tl.num_programs(0)
    for t0 in range(0, tile_count, TILE_BLOCK):
        tile = t0 + tl.arange(0, TILE_BLOCK)
        low_edge = tile * tile_size
        hit = (first_pixel[None, :] < (low_edge + tile_size)[:, None]) & (last_pixel[None, :] >= low_edge[:, None])
        begin = tl.min(tl.where(hit, p[None, :], P), axis=1).to(tl.int64)
        end = tl.max(tl.where(hit, p[None, :] + 1, 0), axis=1).to(tl.int64)
        row = (tl.where(columns, tiles_y, 0) + tile).to(tl.int64)
        packed = tl.where(valid, tl.where(end > 0, begin | (end << 32), 0), 0)
        tl.store(tiles + row * rois_count + k, packed, mask=tile < tile_count)


@triton.jit
def _fill_axes(
    k,
    columns,  # whether this program does x, else y
    rois,
    image,
    spans,
    index,
    weight,
    tiles,
    roi_stride,
    coordinate_stride,
    scale,  # float64
    on_map,  # whether RoI k is on a map at all
    otherwise,  # its image where it is not, or is not finite
    batch,
    height,
    width,
    pooled_h,
    pooled_w,
    sampling_ratio,
    slots,
    slots_y,
    capacity,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    PAD: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    TILE_BLOCK: tl.constexpr,
    P: tl.constexpr,
):
    """The tables of RoI k along one axis; see roi_axes_kernel for what they are."""
    # Follows csrc/common/roi_axis.h operation by operation, so that all backends take the same decisions.
    offset = 0.5 if ALIGNED else 0.0
    valid, low, high = _box_axis(
        rois + k * roi_stride, image + k, columns, coordinate_stride, scale, offset, batch, on_map, otherwise
    )
    extent = tl.where(columns, width, height).to(tl.int32)
    pooled = tl.where(columns, pooled_w, pooled_h).to(tl.int32)
    length = high - low
    if not ALIGNED:
        length = tl.maximum(length, 1.0)
    bin_size = length / pooled.to(tl.float64)
    count_samples = tl.where(sampling_ratio > 0, sampling_ratio, tl.maximum(tl.ceil(bin_size), 0.0).to(tl.int64))
    n = tl.maximum(count_samples, 1).to(tl.float64)

    p = tl.arange(0, P)
    base = low + p.to(tl.float64) * bin_size
    # Only the samples that can be inside: a box of 1e9 px would otherwise cost 1e9 steps. The slack absorbs rounding.
    bounded = (count_samples > 4) & (bin_size != 0.0)
    step = tl.where(bounded, bin_size / n, 1.0)
    a = (-1.0 - base) / step - 0.5
    b = (extent.to(tl.float64) - base) / step - 0.5
    lower = tl.minimum(tl.maximum(tl.floor(tl.minimum(a, b)) - 2.0, 0.0), n)
    upper = tl.minimum(tl.maximum(tl.ceil(tl.maximum(a, b)) + 3.0, 0.0), n)
    first_sample = tl.where(bounded, lower, 0.0).to(tl.int64)
    last_sample = tl.where(bounded, upper.to(tl.int64), count_samples)
    steps = tl.where((p < pooled) & (extent > 0), last_sample - first_sample, 0)

    flipped = bin_size < 0.0  # an inverted box: taken backwards, so that pixels come in rising order
    place = tl.where(flipped, pooled - 1 - p, p)
    # Consecutive bins share at most two pixels, so two slots of room per bin keep them apart.
    slot = k * slots + tl.where(columns, slots_y, 0) + (2 * place if DENSE else p * capacity)
    count = tl.zeros([P], tl.int32)
    first_pixel = tl.full([P], 2147483647, tl.int32)
    last_pixel = tl.full([P], -1, tl.int32)
    # Not yet written: `here` at pixel `at_pixel`, `after` at the one that follows.
    at_pixel = tl.full([P], -2, tl.int32)
    here = tl.zeros([P], tl.float64)
    after = tl.zeros([P], tl.float64)
    for t in range(0, tl.max(steps, axis=0).to(tl.int32) + 1):
        # The turn after a bin's last sample writes what is pending.
        i = tl.where(flipped, last_sample - 1 - t, first_sample + t)
        at = base + (i.to(tl.float64) + 0.5) * bin_size / n
        inside = (t < steps) & (at >= -1.0) & (at <= extent.to(tl.float64))
        at = tl.maximum(tl.where(inside, at, 0.0), 0.0)
        pixel = at.to(tl.int32)
        edge = pixel >= extent - 1
        pixel = tl.where(edge, extent - 1, pixel)
        fraction = tl.where(edge, 0.0, at - pixel.to(tl.float64))
        last_turn = t == steps
        moved = inside & (pixel != at_pixel)
        jumped = inside & (pixel > at_pixel + 1)

        write = (moved | last_turn) & (here != 0.0)
        target = slot + (at_pixel if DENSE else count)
        if not DENSE:
            tl.store(index + target, at_pixel, mask=write)
        tl.store(weight + target, here.to(weight.dtype.element_ty), mask=write)
        count += write.to(tl.int32)
        first_pixel = tl.where(write, tl.minimum(first_pixel, at_pixel), first_pixel)
        last_pixel = tl.where(write, at_pixel, last_pixel)
        write = (jumped | last_turn) & (after != 0.0)
        target = slot + (at_pixel + 1 if DENSE else count)
        if not DENSE:
            tl.store(index + target, at_pixel + 1, mask=write)
        tl.store(weight + target, after.to(weight.dtype.element_ty), mask=write)
        count += write.to(tl.int32)
        last_pixel = tl.where(write, at_pixel + 1, last_pixel)

        here = tl.where(moved, tl.where(jumped, 0.0, after), here) + tl.where(inside, (1.0 - fraction) / n, 0.0)
        after = tl.where(moved, 0.0, after) + tl.where(inside, fraction / n, 0.0)
        at_pixel = tl.where(inside, pixel, at_pixel)

    for j in tl.static_range(PAD):
        pad = (p < pooled) & (count <= j)
        tl.store(index + slot + j, 0, mask=pad)
        tl.store(weight + slot + j, 0.0, mask=pad)
    empty = last_pixel < 0
    span = spans + (k * (pooled_h + pooled_w) + tl.where(columns, pooled_h, 0) + p) * 3
    start = slot - k * slots
    if DENSE:
        count = tl.where(empty, 0, last_pixel - first_pixel + 1)
        start += tl.where(empty, 0, first_pixel)
    tl.store(span, start.to(tl.int32), mask=p < pooled)
    tl.store(span + 1, count, mask=p < pooled)
    tl.store(span + 2, tl.where(empty, 0, first_pixel), mask=p < pooled)

    if TILE_X > 0:
        _mark_tiles(tiles, k, columns, valid, p, first_pixel, last_pixel, height, width, TILE_Y, TILE_X, TILE_BLOCK, P)


# No specialisation on numbers that change from call to call and on which no address alignment depends.
@triton.jit(
    do_not_specialize=[
        "scale_bits",
        "batch",
        "height",
        "width",
        "pooled_h",
        "pooled_w",
        "sampling_ratio",
        "slots",
        "slots_y",
        "capacity",
    ]
)
def roi_axes_kernel(
    rois,  # [K, 5] (batch index, x1, y1, x2, y2)
    image,  # [K] int32, written: the image of each RoI; -1: its output is NaN
    spans,  # [K, PH + PW, 3] int32, written: first slot, number of entries, first pixel
    index,  # [K, slots] int32, written unless DENSE: pixel of each entry, rows before columns
    weight,  # [K, slots], written: weight of each entry
    tiles,  # [tiles_y + tiles_x, K] int64, written if TILE_X: bins that reach into a tile, first | end << 32
    roi_stride,
    coordinate_stride,
    scale_bits,
    batch,
    height,
    width,
    pooled_h,
    pooled_w,
    sampling_ratio,
    slots,
    slots_y,
    capacity,  # slots per bin, unless DENSE
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,  # a bin's entries are consecutive pixels, gaps included
    PAD: tl.constexpr,  # slots per bin to be filled with zeros where there is no entry
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    TILE_BLOCK: tl.constexpr,
    P: tl.constexpr,  # bins along the longer axis, rounded up
):
    k = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) == 1
    scale = scale_bits.to(tl.int64).to(tl.float64, bitcast=True)
    _fill_axes(
        k,
        columns,
        rois,
        image,
        spans,
        index,
        weight,
        tiles,
        roi_stride,
        coordinate_stride,
        scale,
        True,
        -1,
        batch,
        height,
        width,
        pooled_h,
        pooled_w,
        sampling_ratio,
        slots,
        slots_y,
        capacity,
        ALIGNED,
        DENSE,
        PAD,
        TILE_Y,
        TILE_X,
        TILE_BLOCK,
        P,
    )


def weight_dtype(dtype: torch.dtype) -> torch.dtype:
    """What features of a type are weighted and summed in."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class RoiAxes:
    """The tables of one call; see :func:`roi_axes_kernel` for what each holds. Running ``launch`` fills them."""

    image: torch.Tensor
    spans: torch.Tensor
    index: torch.Tensor | None
    weight: torch.Tensor
    tiles: torch.Tensor | None
    slots_y: int
    taps: int  # entries per bin where that is fixed; 0: as its span says
    launch: Launch


def roi_axes(
    rois: torch.Tensor,
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    map_shape: tuple[int, int, int],
    weight_dtype: torch.dtype,
    tile: tuple[int, int] | None = None,
) -> RoiAxes:
    """Allocate the tables of ``rois [K, 5]`` on a map ``(N, H, W)``.

    Args:
        tile: pixels ``(height, width)`` of the tiles of a kernel that gathers by pixel. The entries of a bin then are
            consecutive pixels whatever the sampling, so that a pixel finds its weight without a search.
    """
    batch, height, width = map_shape
    tables = allocate_tables(rois, pooled, sampling_ratio, aligned, (height, width), weight_dtype, tile)
    k, device = rois.shape[0], rois.device
    tiles = None
    tile_y, tile_x = tile or (0, 0)
    if tile is not None:
        rows = triton.cdiv(height, tile_y) + triton.cdiv(width, tile_x)
        tiles = torch.empty((rows, k), dtype=torch.int64, device=device)
    p = tables.arguments["P"]
    arguments = {
        **tables.arguments,
        "tiles": tiles,
        "scale_bits": double_bits(spatial_scale),
        "batch": batch,
        "height": height,
        "width": width,
        "TILE_Y": tile_y,
        "TILE_X": tile_x,
        "TILE_BLOCK": max(1, 512 // p),
    }
    launch = Launch(roi_axes_kernel, (k, 2), arguments, axes_options(p))
    t = tables
    return RoiAxes(t.image, t.spans, t.index, t.weight, tiles, t.slots_y, t.taps, launch)


def axes_options(p: int) -> dict[str, Any]:
    """One warp: its lanes are bins, of which there are 7 or 14. No fused multiply-adds: see the kernel."""
    return {"num_warps": max(1, min(8, p // 64)), "enable_fp_fusion": False}


@dataclass(frozen=True)
class Tables:
    """Tables still to be filled, and the arguments that every kernel which fills them takes."""

    image: torch.Tensor
    spans: torch.Tensor
    index: torch.Tensor | None
    weight: torch.Tensor
    slots_y: int
    taps: int
    arguments: dict[str, Any]


def allocate_tables(
    rois: torch.Tensor,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    extent: tuple[int, int],
    weight_dtype: torch.dtype,
    tile: tuple[int, int] | None = None,
) -> Tables:
    """Memory for the tables of ``rois [K, 5]`` on maps of up to ``extent`` pixels ``(height, width)``."""
    (pooled_h, pooled_w), (height, width) = pooled, extent
    k, device = rois.shape[0], rois.device
    fixed = sampling_ratio > 0
    # Adaptive samples are at most a pixel apart and leave no gaps.
    dense = tile is not None or not fixed
    taps = 2 * sampling_ratio if not dense and sampling_ratio <= STATIC_SAMPLES else 0
    capacity = taps or min(2 * sampling_ratio, max(height, width))
    slots_y, slots_x = (
        extent + 2 * bins if dense else capacity * bins for extent, bins in ((height, pooled_h), (width, pooled_w))
    )
    slots = slots_y + slots_x
    image = torch.empty(k, dtype=torch.int32, device=device)
    spans = torch.empty((k, pooled_h + pooled_w, 3), dtype=torch.int32, device=device)
    index = None if dense else torch.empty((k, slots), dtype=torch.int32, device=device)
    weight = (torch.zeros if dense and fixed else torch.empty)((k, slots), dtype=weight_dtype, device=device)
    arguments = {
        "rois": rois,
        "image": image,
        "spans": spans,
        "index": index,
        "weight": weight,
        "roi_stride": rois.stride(0),
        "coordinate_stride": rois.stride(1),
        "pooled_h": pooled_h,
        "pooled_w": pooled_w,
        "sampling_ratio": max(sampling_ratio, 0),
        "slots": slots,
        "slots_y": slots_y,
        "capacity": capacity,
        "ALIGNED": aligned,
        "DENSE": dense,
        "PAD": taps,
        "P": triton.next_power_of_2(max(pooled_h, pooled_w)),
    }
    return Tables(image, spans, index, weight, slots_y, taps, arguments)
