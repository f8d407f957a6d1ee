"""RoI Align over a feature pyramid, forward and backward.

Forward: the tables of :mod:`structops.triton_kernels._roi_axes`, of each RoI on the level it belongs to, and one launch
that pools from whichever map that is. Backward: one launch that sorts the RoIs by level, then roi_align's own for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run
from structops.triton_kernels._multiscale_levels import CHOICE, LEVELS, _choose_level, _double, _pick, choice_arguments
from structops.triton_kernels._multiscale_roi_align_backward import backward
from structops.triton_kernels._roi_axes import _fill_axes, allocate_tables, axes_options, weight_dtype
from structops.triton_kernels.roi_align import _of_bins, _pool_bins, forward_launch

from structops._layout import memory_format


@triton.jit(
    do_not_specialize=[
        *CHOICE,
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
        **choice_arguments(rois, scales, *choice),
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
    shapes = [(batch_size, channels, *size) for size in zip(sizes[::2], sizes[1::2], strict=True)]
    choice = (canonical_scale, canonical_level, levels, valid)
    grads, launches = backward(grad, rois, scales, shapes, sampling_ratio, aligned, *choice)
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
