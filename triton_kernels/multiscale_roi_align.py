"""RoI Align over a feature pyramid, forward and backward.

Forward: the tables of :mod:`structops.triton_kernels._roi_axes`, of each RoI on the level it belongs to, and one launch
that pools from whichever map that is. Backward: one launch that sorts the RoIs by level, then roi_align's own for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run
from structops.triton_kernels._roi_align_backward import backward
from structops.triton_kernels._roi_axes import _fill_axes, allocate_tables, axes_options, weight_dtype
from structops.triton_kernels.roi_align import _of_bins, _pool_bins, forward_launch

from structops._layout import memory_format
from structops.reference.multiscale_roi_align import level_thresholds

LEVELS = 8  # at most
_THRESHOLDS = [f"threshold{i}" for i in range(LEVELS)]
_CHOICE = ["chosen_stride", "valid_stride", "levels", "rows", *_THRESHOLDS]


@triton.jit
def _double(bits):
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _pick(level, v0, v1, v2, v3, v4, v5, v6, v7):
    """The one of eight numbers that a level says."""
    v = tl.where(level == 1, v1.to(tl.int64), v0.to(tl.int64))
    v = tl.where(level == 2, v2.to(tl.int64), v)
    v = tl.where(level == 3, v3.to(tl.int64), v)
    v = tl.where(level == 4, v4.to(tl.int64), v)
    v = tl.where(level == 5, v5.to(tl.int64), v)
    v = tl.where(level == 6, v6.to(tl.int64), v)
    return tl.where(level == 7, v7.to(tl.int64), v)


@triton.jit
def _choose_level(
    k,
    rois,  # [K, 5]
    roi_stride,
    coordinate_stride,
    chosen,  # [K] integers, or None: by area
    valid,  # [K / rows] integers, or None
    chosen_stride,
    valid_stride,
    levels,
    rows,
    t0,
    t1,
    t2,
    t3,
    t4,
    t5,
    t6,
    t7,
):
    """The level of RoI k; -1: its output is zero, -2: NaN. As csrc/multiscale_roi_align/levels.h says."""
    if chosen is not None:
        given = tl.load(chosen + k * chosen_stride).to(tl.int64)
        level = tl.where((given >= 0) & (given < levels), given, -2).to(tl.int32)
    else:
        roi = rois + k * roi_stride
        x1 = tl.load(roi + coordinate_stride).to(tl.float64)
        y1 = tl.load(roi + 2 * coordinate_stride).to(tl.float64)
        x2 = tl.load(roi + 3 * coordinate_stride).to(tl.float64)
        y2 = tl.load(roi + 4 * coordinate_stride).to(tl.float64)
        area = (x2 - x1) * (y2 - y1)
        level = (area >= _double(t0)).to(tl.int32) + (area >= _double(t1)).to(tl.int32)
        level += (area >= _double(t2)).to(tl.int32) + (area >= _double(t3)).to(tl.int32)
        level += (area >= _double(t4)).to(tl.int32) + (area >= _double(t5)).to(tl.int32)
        level += (area >= _double(t6)).to(tl.int32) + (area >= _double(t7)).to(tl.int32)
        level = tl.where(level < levels, level, -1)
    if valid is not None:
        count = tl.load(valid + (k // rows) * valid_stride).to(tl.int64)
        level = tl.where(k % rows >= count, -1, level)
    return level


@triton.jit(
    do_not_specialize=[
        *_CHOICE,
        *[f"{name}{i}" for name in ("size", "scale") for i in range(LEVELS)],
        "batch",
        "pooled_h",
        "pooled_w",
        "sampling_ratio",
        "slots",
        "slots_y",
        "capacity",
    ]
)
def multiscale_axes_kernel(
    rois,  # [K, 5] (batch index, x1, y1, x2, y2)
    place,  # [K] int32, written: the level of each RoI, 0 where it has none
    image,  # [K] int32, written: its image; -1: its output is NaN, -2: zero
    spans,  # these three as roi_axes_kernel has them
    index,
    weight,
    chosen,
    valid,
    roi_stride,
    coordinate_stride,
    chosen_stride,
    valid_stride,
    levels,
    rows,
    threshold0,
    threshold1,
    threshold2,
    threshold3,
    threshold4,
    threshold5,
    threshold6,
    threshold7,
    size0,  # height | width << 32
    size1,
    size2,
    size3,
    size4,
    size5,
    size6,
    size7,
    scale0,  # bits of a float64
    scale1,
    scale2,
    scale3,
    scale4,
    scale5,
    scale6,
    scale7,
    batch,
    pooled_h,
    pooled_w,
    sampling_ratio,
    slots,
    slots_y,
    capacity,
    ALIGNED: tl.constexpr,
    DENSE: tl.constexpr,
    PAD: tl.constexpr,
    P: tl.constexpr,
):
    k = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) == 1
    level = _choose_level(
        k,
        rois,
        roi_stride,
        coordinate_stride,
        chosen,
        valid,
        chosen_stride,
        valid_stride,
        levels,
        rows,
        threshold0,
        threshold1,
        threshold2,
        threshold3,
        threshold4,
        threshold5,
        threshold6,
        threshold7,
    )
    size = _pick(level, size0, size1, size2, size3, size4, size5, size6, size7)
    scale = _double(_pick(level, scale0, scale1, scale2, scale3, scale4, scale5, scale6, scale7))
    height = (size & 0x7FFFFFFF).to(tl.int32)
    width = (size >> 32).to(tl.int32)
    if not columns:
        tl.store(place + k, tl.maximum(level, 0))
    # An empty map gives zeros.
    nothing = (level == -1) | ((level >= 0) & ((height == 0) | (width == 0)))
    _fill_axes(
        k,
        columns,
        rois,
        image,
        spans,
        index,
        weight,
        None,
        roi_stride,
        coordinate_stride,
        scale,
        (level >= 0) & (nothing == 0),
        tl.where(nothing, -2, -1),
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
        0,
        0,
        1,
        P,
    )


@triton.jit(
    do_not_specialize=[
        *[f"size{i}" for i in range(LEVELS)],
        "pooled_h",
        "pooled_w",
        "slots",
        "slots_y",
        "splits",
        "tiles_per_program",
    ]
)
def multiscale_forward_kernel(
    features0,  # [N, C, H0, W0], dense in the layout that BINS_FIRST says
    features1,  # None past the last level, like those that follow
    features2,
    features3,
    features4,
    features5,
    features6,
    features7,
    out,  # [K, C, PH, PW], written
    place,  # [K] int32
    image,  # [K] int32
    spans,
    index,
    weight,
    size0,  # height | width << 32
    size1,
    size2,
    size3,
    size4,
    size5,
    size6,
    size7,
    out_stride_k,
    out_stride_c,
    out_stride_bin,
    channels,
    pooled_h,
    pooled_w,
    slots,
    slots_y,
    splits,
    tiles_per_program,
    TAPS: tl.constexpr,
    DENSE: tl.constexpr,
    BINS_FIRST: tl.constexpr,
    BLOCK_BINS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # As roi_align_forward_kernel, which this is after the map has been found.
    pid = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = _of_bins(channel < channels, not BINS_FIRST)
    split = pid // channel_blocks % splits
    k = (pid // channel_blocks // splits).to(tl.int64)

    level = tl.load(place + k)
    picture = tl.load(image + k)
    valid = picture >= 0
    features = features0
    if features1 is not None:
        features = tl.where(level == 1, features1, features)
    if features2 is not None:
        features = tl.where(level == 2, features2, features)
    if features3 is not None:
        features = tl.where(level == 3, features3, features)
    if features4 is not None:
        features = tl.where(level == 4, features4, features)
    if features5 is not None:
        features = tl.where(level == 5, features5, features)
    if features6 is not None:
        features = tl.where(level == 6, features6, features)
    if features7 is not None:
        features = tl.where(level == 7, features7, features)
    size = _pick(level, size0, size1, size2, size3, size4, size5, size6, size7)
    height = size & 0x7FFFFFFF
    width = size >> 32
    if BINS_FIRST:
        channel_offset = channel.to(tl.int64)
        stride_w = channels.to(tl.int64)
    else:
        channel_offset = channel.to(tl.int64) * (height * width)
        stride_w = tl.full([], 1, tl.int64)
    stride_h = width * stride_w
    picture_offset = picture.to(tl.int64) * (height * width) * channels
    source = features + picture_offset + _of_bins(channel_offset, not BINS_FIRST)
    target = out + k * out_stride_k + _of_bins(channel.to(tl.int64) * out_stride_c, not BINS_FIRST)
    _pool_bins(
        source,
        target,
        spans,
        index,
        weight,
        k,
        valid,
        tl.where(picture == -2, 0.0, float("nan")),
        split,
        stride_h,
        stride_w,
        out_stride_bin,
        channel_mask,
        pooled_h,
        pooled_w,
        slots,
        slots_y,
        tiles_per_program,
        TAPS,
        DENSE,
        BINS_FIRST,
        BLOCK_BINS,
        BLOCK_C,
    )


@triton.jit(do_not_specialize=[*_CHOICE, "count"])
def multiscale_split_kernel(
    rois,  # [K, 5]
    split,  # [levels, K, 5], written: the RoIs of a level, NaN in the place of the others
    chosen,
    valid,
    roi_stride,
    coordinate_stride,
    chosen_stride,
    valid_stride,
    levels,
    rows,
    threshold0,
    threshold1,
    threshold2,
    threshold3,
    threshold4,
    threshold5,
    threshold6,
    threshold7,
    count,
    BLOCK: tl.constexpr,
):
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = k < count
    k = tl.minimum(k, count - 1)
    level = _choose_level(
        k,
        rois,
        roi_stride,
        coordinate_stride,
        chosen,
        valid,
        chosen_stride,
        valid_stride,
        levels,
        rows,
        threshold0,
        threshold1,
        threshold2,
        threshold3,
        threshold4,
        threshold5,
        threshold6,
        threshold7,
    )
    for j in tl.static_range(5):
        value = tl.load(rois + k * roi_stride + j * coordinate_stride)
        for l in range(0, levels):
            here = tl.where(level == l, value, float("nan"))
            tl.store(split + (l * count + k) * 5 + j, here.to(split.dtype.element_ty), mask=mask)


def _choice(
    rois: torch.Tensor,
    scales: Sequence[float],
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> dict[str, Any]:
    """What :func:`_choose_level` goes by, as arguments of a kernel."""
    thresholds = [math.nan] * LEVELS
    if levels is None:
        found = level_thresholds(scales, canonical_scale, canonical_level)
        thresholds[: len(found)] = found
    # An 8-bit integer is the one that a pointer does not say the sign of.
    levels, valid = (None if t is None else t.long() if t.dtype.itemsize == 1 else t for t in (levels, valid))
    return {
        "chosen": levels,
        "valid": valid,
        "roi_stride": rois.stride(0),
        "coordinate_stride": rois.stride(1),
        "chosen_stride": 1 if levels is None else levels.stride(0),
        "valid_stride": 1 if valid is None else valid.stride(0),
        "levels": len(scales),
        "rows": 1 if valid is None else rois.shape[0] // valid.shape[0],
        **dict(zip(_THRESHOLDS, map(double_bits, thresholds), strict=True)),
    }


def _padded(name: str, values: Sequence[Any], missing: Any) -> dict[str, Any]:
    return {f"{name}{i}": values[i] if i < len(values) else missing for i in range(LEVELS)}


def _forward(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    scales: Sequence[float],
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    *choice: Any,
) -> tuple[torch.Tensor, list[Launch]]:
    first = features[0]
    layout = memory_format(first)
    batch, channels, _, _ = first.shape
    k, device = rois.shape[0], rois.device
    out = torch.empty((k, channels, *pooled), dtype=first.dtype, device=device, memory_format=layout)
    if out.numel() == 0:
        return out, []
    # Dense, so that a map is a pointer and two sizes to the kernel, and one expression does for all.
    maps = [f.contiguous(memory_format=layout) for f in features]
    extent = (max(f.shape[2] for f in maps), max(f.shape[3] for f in maps))
    tables = allocate_tables(rois, pooled, sampling_ratio, aligned, extent, weight_dtype(first.dtype))
    place = torch.empty(k, dtype=torch.int32, device=device)
    sizes = _padded("size", [f.shape[2] | f.shape[3] << 32 for f in maps], 0)
    fill = {
        **tables.arguments,
        **_choice(rois, scales, *choice),
        **sizes,
        **_padded("scale", list(map(double_bits, scales)), 0),
        "place": place,
        "batch": batch,
    }
    source = {**_padded("features", maps, None), **sizes, "place": place}
    return out, [
        Launch(multiscale_axes_kernel, (k, 2), fill, axes_options(fill["P"])),
        forward_launch(multiscale_forward_kernel, source, maps[0], tables, out),
    ]


def multiscale_roi_align(
    features: list[torch.Tensor],
    rois: torch.Tensor,
    scales: list[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> torch.Tensor:
    """RoI Align of ``rois [K, 5]`` over ``features``: ``[K, C, pooled_height, pooled_width]``."""
    choice = (canonical_scale, canonical_level, levels, valid)
    pooled = (pooled_height, pooled_width)
    out, launches = _forward(features, rois, scales, pooled, sampling_ratio, aligned, *choice)
    run(features[0].device, launches)
    return out


def _split(rois: torch.Tensor, scales: Sequence[float], *choice: Any) -> tuple[torch.Tensor, list[Launch]]:
    """``[levels, K, 5]``: on each level its RoIs, and NaN in the place of the others."""
    k = rois.shape[0]
    split = torch.empty((len(scales), k, 5), dtype=rois.dtype, device=rois.device)
    arguments = {"rois": rois, "split": split, **_choice(rois, scales, *choice), "count": k, "BLOCK": 128}
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return split, [Launch(multiscale_split_kernel, (triton.cdiv(k, 128),), arguments, options)]


def multiscale_roi_align_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    scales: list[float],
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    sizes: list[int],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    levels: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Gradients of :func:`multiscale_roi_align` with respect to its features."""
    choice = (canonical_scale, canonical_level, levels, valid)
    if rois.shape[0] == 0:
        split, launches = rois.expand(len(scales), 0, 5), []
    else:
        split, launches = _split(rois, scales, *choice)
    grads = []
    for level, scale in enumerate(scales):
        shape = (batch_size, channels, sizes[2 * level], sizes[2 * level + 1])
        grad_input, more = backward(grad, split[level], scale, shape, sampling_ratio, aligned)
        grads.append(grad_input)
        launches += more
    run(grad.device, launches)
    return grads


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            shapes = [(2, 256, 200 >> i, 336 >> i) for i in range(4)]
            maps = [torch.empty(s, dtype=dtype, device="meta").to(memory_format=layout) for s in shapes]
            boxes = torch.float64 if dtype == torch.float64 else torch.float32
            rois = torch.empty((1000, 5), dtype=boxes, device="meta")
            valid = torch.empty(2, dtype=torch.int64, device="meta")
            name = f"{str(dtype)[6:]}-{'NHWC' if layout == torch.channels_last else 'NCHW'}"
            for ratio in (2, 0):
                _, launches = _forward(maps, rois, scales, (7, 7), ratio, False, 224.0, 4, None, valid)
                yield from ((f"forward-{name}-sampling{ratio}", launch) for launch in launches)
        levels = torch.empty(1000, dtype=torch.int64, device="meta")
        yield from ((f"split-{name}", launch) for launch in _split(rois, scales, 224.0, 4, None, None)[1])
        yield from ((f"split-{name}-levels", launch) for launch in _split(rois, scales, 224.0, 4, levels, None)[1])
