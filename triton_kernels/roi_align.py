"""RoI Align, forward and backward.

Both kernels read the weights that :mod:`structops.triton_kernels._roi_axes` prepares, so what remains is moving
features: the forward gathers pixels by bin, the backward gathers bins by pixel. Neither uses atomics, so results are
the same bit for bit from run to run. Block sizes follow from the shapes by the closed forms below rather than from
autotuning: the kernels are bound by loads in flight, which can be counted, and autotuning would cost the first call of
every shape seconds and a host sync.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, multiprocessors, run
from structops.triton_kernels._roi_align_backward import backward
from structops.triton_kernels._roi_axes import RoiAxes, Tables, roi_axes, weight_dtype

from structops._layout import memory_format


@triton.jit
def _tap(index, weight, start, first_pixel, j, mask, DENSE: tl.constexpr):
    """Pixel and weight of entry j of each bin; weight zero where there is none."""
    value = tl.load(weight + start + j, mask=mask, other=0.0)
    pixel = first_pixel + j if DENSE else tl.load(index + start + j, mask=mask, other=0)
    return pixel.to(tl.int64), value


@triton.jit
def _of_bins(x, BINS_FIRST: tl.constexpr):
    """A vector over bins as a column or a row of the tile: consecutive lanes lie along its last axis."""
    return x[:, None] if BINS_FIRST else x[None, :]


@triton.jit
def _add(total, row, pixel, weight_x, weight_y, stride_w, channel_mask, BINS_FIRST: tl.constexpr):
    """Adds one pixel of every bin. Where its weight is zero it is not read."""
    w = weight_y * weight_x
    pointers = row + _of_bins(pixel * stride_w, BINS_FIRST)
    features = tl.load(pointers, mask=_of_bins(w != 0.0, BINS_FIRST) & channel_mask, other=0.0)
    return total + _of_bins(w, BINS_FIRST) * features.to(total.dtype)


@triton.jit
def _add_row(
    total,
    row,
    wy,
    x0,
    w0,
    x1,
    w1,
    x2,
    w2,
    x3,
    w3,
    stride_w,
    channel_mask,
    TAPS: tl.constexpr,
    BINS_FIRST: tl.constexpr,
):
    total = _add(total, row, x0, w0, wy, stride_w, channel_mask, BINS_FIRST)
    total = _add(total, row, x1, w1, wy, stride_w, channel_mask, BINS_FIRST)
    if TAPS != 2:
        total = _add(total, row, x2, w2, wy, stride_w, channel_mask, BINS_FIRST)
        total = _add(total, row, x3, w3, wy, stride_w, channel_mask, BINS_FIRST)
    return total


@triton.jit
def _pool_bins(
    source,  # pointers to the RoI's image, along channels
    target,  # and to its outputs
    spans,
    index,
    weight,
    k,
    valid,  # else every output is `otherwise`
    otherwise,
    split,  # of those that share the RoI's bins
    stride_h,
    stride_w,
    out_stride_bin,
    channel_mask,
    pooled_h,
    pooled_w,
    slots,
    slots_y,
    tiles_per_program,
    TAPS: tl.constexpr,
    DENSE: tl.constexpr,
    BINS_FIRST: tl.constexpr,
    BLOCK_BINS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A share of the bins of RoI k, for a block of channels; see roi_align_forward_kernel."""
    span = spans + k * (pooled_h + pooled_w) * 3
    if not DENSE:
        index += k * slots
    weight += k * slots
    bins = pooled_h * pooled_w
    for tile in range(split * tiles_per_program, (split + 1) * tiles_per_program):
        b = tile * BLOCK_BINS + tl.arange(0, BLOCK_BINS)
        mask = (b < bins) & valid
        ph = b // pooled_w
        pw = b - ph * pooled_w
        # A bin's entries: on from `start`, `count` of them.
        if TAPS > 0:
            start_y = ph * TAPS
            start_x = slots_y + pw * TAPS
            count_y = tl.full([BLOCK_BINS], TAPS, tl.int32)
            count_x = count_y
            first_y = count_y
            first_x = count_y
            rows = TAPS
            columns = TAPS
        else:
            start_y = tl.load(span + ph * 3, mask=mask, other=0)
            count_y = tl.load(span + ph * 3 + 1, mask=mask, other=0)
            first_y = tl.load(span + ph * 3 + 2, mask=mask, other=0)
            start_x = tl.load(span + (pooled_h + pw) * 3, mask=mask, other=0)
            count_x = tl.load(span + (pooled_h + pw) * 3 + 1, mask=mask, other=0)
            first_x = tl.load(span + (pooled_h + pw) * 3 + 2, mask=mask, other=0)
            rows = tl.max(count_y, axis=0)
            columns = tl.max(count_x, axis=0)
        if BINS_FIRST:
            total = tl.zeros([BLOCK_BINS, BLOCK_C], weight.dtype.element_ty)
        else:
            total = tl.zeros([BLOCK_C, BLOCK_BINS], weight.dtype.element_ty)
        # Four columns at a time: their loads are independent, so all are in flight together.
        for j in range(0, columns, 4):
            x0, w0 = _tap(index, weight, start_x, first_x, j, mask & (j < count_x), DENSE)
            x1, w1 = _tap(index, weight, start_x, first_x, j + 1, mask & (j + 1 < count_x), DENSE)
            x2, w2 = x0, w0
            x3, w3 = x0, w0
            if TAPS != 2:
                x2, w2 = _tap(index, weight, start_x, first_x, j + 2, mask & (j + 2 < count_x), DENSE)
                x3, w3 = _tap(index, weight, start_x, first_x, j + 3, mask & (j + 3 < count_x), DENSE)
            if TAPS > 0:
                for i in tl.static_range(TAPS):
                    y, wy = _tap(index, weight, start_y, first_y, i, mask, DENSE)
                    row = source + _of_bins(y * stride_h, BINS_FIRST)
                    total = _add_row(
                        total, row, wy, x0, w0, x1, w1, x2, w2, x3, w3, stride_w, channel_mask, TAPS, BINS_FIRST
                    )
            else:
                for i in range(rows):
                    y, wy = _tap(index, weight, start_y, first_y, i, mask & (i < count_y), DENSE)
                    row = source + _of_bins(y * stride_h, BINS_FIRST)
                    total = _add_row(
                        total, row, wy, x0, w0, x1, w1, x2, w2, x3, w3, stride_w, channel_mask, TAPS, BINS_FIRST
                    )
        total = tl.where(valid, total, otherwise)
        # Written once and not read here: leave the cache to the features.
        tl.store(
            target + _of_bins(b.to(tl.int64) * out_stride_bin, BINS_FIRST),
            total.to(target.dtype.scalar.element_ty),
            mask=_of_bins(b < bins, BINS_FIRST) & channel_mask,
            eviction_policy="evict_first",
        )


@triton.jit(do_not_specialize=["pooled_h", "pooled_w", "slots", "slots_y", "splits", "tiles_per_program"])
def roi_align_forward_kernel(
    features,  # [N, C, H, W]
    out,  # [K, C, PH, PW], written
    image,  # [K] int32
    spans,  # [K, PH + PW, 3] int32
    index,  # [K, slots] int32
    weight,  # [K, slots]
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    out_stride_k,
    out_stride_c,
    out_stride_bin,  # from (ph, pw) to the next in row order
    channels,
    pooled_h,
    pooled_w,
    slots,
    slots_y,
    splits,  # programs that share a RoI's bins
    tiles_per_program,
    TAPS: tl.constexpr,  # entries per bin along an axis; 0: as the span says
    DENSE: tl.constexpr,
    BINS_FIRST: tl.constexpr,  # the tile is [bins, channels] and not [channels, bins]
    BLOCK_BINS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Neighbouring programs share a RoI, and so its tables and the map's lines.
    pid = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = _of_bins(channel < channels, not BINS_FIRST)
    split = pid // channel_blocks % splits
    k = (pid // channel_blocks // splits).to(tl.int64)

    picture = tl.load(image + k)
    valid = picture >= 0
    source = features + picture.to(tl.int64) * stride_n + _of_bins(channel.to(tl.int64) * stride_c, not BINS_FIRST)
    target = out + k * out_stride_k + _of_bins(channel.to(tl.int64) * out_stride_c, not BINS_FIRST)
    _pool_bins(
        source,
        target,
        spans,
        index,
        weight,
        k,
        valid,
        float("nan"),
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


def forward_launch(
    kernel: Any, arguments: dict[str, Any], features: torch.Tensor, axes: RoiAxes | Tables, out: torch.Tensor
) -> Launch:
    """The launch of a forward kernel: ``arguments`` says where the features are, the tables and blocks are added.

    Args:
        features: one of the maps, for its layout and type.
    """
    channels = features.shape[1]
    k, _, pooled_h, pooled_w = out.shape
    bins = pooled_h * pooled_w
    channels_last = memory_format(features) == torch.channels_last
    if channels_last:
        # A tile of 4 KiB is two 16-byte loads per pixel and thread, so up to 32 independent ones at sampling ratio 2;
        # at 84 to 104 registers a multiprocessor holds 16 to 20 such warps.
        elements = 4096 // features.element_size()
        block_c = min(elements // 4, triton.next_power_of_2(channels))
        block_bins = min(elements // block_c, triton.next_power_of_2(bins))
    else:
        # Lanes are bins, whose pixels are neighbours along x; each thread takes four channels (two of doubles) of
        # one bin, which share its weights.
        block_bins = min(32, triton.next_power_of_2(bins))
        block_c = min(min(512, 2048 // features.element_size()) // block_bins, triton.next_power_of_2(channels))
    channel_blocks, bin_tiles = triton.cdiv(channels, block_c), triton.cdiv(bins, block_bins)
    # Bins of a RoI overlap, so keeping them in one program serves the overlap from L1. Split only as far as it takes
    # to give each multiprocessor 8 programs of 4 warps.
    splits = min(bin_tiles, triton.cdiv(8 * multiprocessors(features.device), k * channel_blocks))
    arguments = {
        **arguments,
        "out": out,
        "image": axes.image,
        "spans": axes.spans,
        "index": axes.index,
        "weight": axes.weight,
        "out_stride_k": out.stride(0),
        "out_stride_c": out.stride(1),
        "out_stride_bin": channels if channels_last else 1,
        "channels": channels,
        "pooled_h": pooled_h,
        "pooled_w": pooled_w,
        "slots": axes.weight.shape[1],
        "slots_y": axes.slots_y,
        "splits": splits,
        "tiles_per_program": triton.cdiv(bin_tiles, splits),
        "TAPS": axes.taps,
        "DENSE": axes.index is None,
        "BINS_FIRST": channels_last,
        "BLOCK_BINS": block_bins,
        "BLOCK_C": block_c,
    }
    vector_loads = channels_last and channels * features.element_size() % 16 == 0
    grid = (k * splits * channel_blocks,)
    return Launch(kernel, grid, arguments, {"num_warps": 4}, vector_loads)


def _forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> tuple[torch.Tensor, list[Launch]]:
    batch, channels, height, width = input.shape
    out = torch.empty(
        (rois.shape[0], channels, *pooled),
        dtype=input.dtype,
        device=input.device,
        memory_format=memory_format(input),
    )
    if out.numel() == 0:
        return out, []
    axes = roi_axes(
        rois, spatial_scale, pooled, sampling_ratio, aligned, (batch, height, width), weight_dtype(input.dtype)
    )
    source = {"features": input, **{f"stride_{d}": n for d, n in zip("nchw", input.stride(), strict=True)}}
    return out, [axes.launch, forward_launch(roi_align_forward_kernel, source, input, axes, out)]


def roi_align(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """RoI Align of ``input [N, C, H, W]`` at ``rois [K, 5]``: ``[K, C, pooled_height, pooled_width]``."""
    pooled = (pooled_height, pooled_width)
    out, launches = _forward(input, rois, spatial_scale, pooled, sampling_ratio, aligned)
    run(input.device, launches)
    return out


def roi_align_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Gradient of :func:`roi_align` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, C, H, W]``."""
    shape = (batch_size, channels, height, width)
    grad_input, launches = backward(grad, rois, spatial_scale, shape, sampling_ratio, aligned)
    run(grad.device, launches)
    return grad_input


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            features = torch.empty((2, 256, 50, 64), dtype=dtype, device="meta", memory_format=layout)
            boxes = torch.float64 if dtype == torch.float64 else torch.float32
            rois = torch.empty((1000, 5), dtype=boxes, device="meta")
            name = f"{str(dtype)[6:]}-{'NHWC' if layout == torch.channels_last else 'NCHW'}"
            for ratio in (1, 2, 3, 0) if dtype == torch.float32 else (2, 0):
                out, launches = _forward(features, rois, 0.25, (7, 7), ratio, ratio == 2)
                yield from ((f"forward-{name}-sampling{ratio}", launch) for launch in launches)
            _, launches = backward(out, rois, 0.25, tuple(features.shape), 0, True)
            yield from ((f"backward-{name}", launch) for launch in launches)
