"""RoI Align of rotated boxes.

What a RoI is comes from the tables of :mod:`structops.triton_kernels._rotated_rois`. Rotation couples the axes, so
nothing else can be tabled: positions are computed in double beside the features they fetch, once for a block of
channels. The forward gathers pixels by bin, the backward bins by pixel: neither uses atomics, so results are the same
bit for bit from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._roi_align_rotated_backward import backward
from structops.triton_kernels._rotated_rois import RotatedRois, _between, _local, _pixel, _roi, rotated_rois

from structops._layout import memory_format


@triton.jit
def _of_bins(x, BINS_FIRST: tl.constexpr):
    """A vector over bins as a column or a row of the tile: consecutive lanes lie along its last axis."""
    return x[:, None] if BINS_FIRST else x[None, :]


@triton.jit
def _add(total, pointers, weight, channel_mask, BINS_FIRST: tl.constexpr):
    """Adds one pixel of every bin. Where its weight is zero it is not read."""
    w = _of_bins(weight.to(total.dtype), BINS_FIRST)
    features = tl.load(pointers, mask=(w != 0.0) & channel_mask, other=0.0)
    return tl.fma(w + tl.zeros_like(total), features.to(total.dtype), total)


@triton.jit(do_not_specialize=["rois_count", "height", "width", "pooled_h", "pooled_w"])
def roi_align_rotated_forward_kernel(
    features,  # [N, C, H, W]
    out,  # [K, C, PH, PW], written
    table,  # [ROWS, K] float64
    counts,  # [2, K] int32
    image,  # [K] int32
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    out_stride_k,
    out_stride_c,
    out_stride_bin,  # from (ph, pw) to the next in row order
    rois_count,
    channels,
    height,
    width,
    pooled_h,
    pooled_w,
    BINS_FIRST: tl.constexpr,  # the tile is [bins, channels] and not [channels, bins]
    BLOCK_BINS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Neighbouring programs share a RoI, and so the map's lines.
    pid = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    bins = pooled_h * pooled_w
    tiles = tl.cdiv(bins, BLOCK_BINS)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = _of_bins(channel < channels, not BINS_FIRST)
    b = (pid // channel_blocks % tiles) * BLOCK_BINS + tl.arange(0, BLOCK_BINS)
    k = (pid // channel_blocks // tiles).to(tl.int64)

    picture = tl.load(image + k)
    valid = picture >= 0
    center_x, center_y, cos, sin, start_x, bin_x, start_y, bin_y, samples_x, samples_y = _roi(
        table, counts, k, rois_count
    )
    height = height.to(tl.int32)
    width = width.to(tl.int32)
    x_low, x_high, y_low, y_high = _local(
        center_x, center_y, cos, sin, center_x * 0.0 - 1.0, width.to(tl.float64), -1.0, height.to(tl.float64)
    )
    ph = b // pooled_w
    pw = b - ph * pooled_w
    base_x = start_x + pw.to(tl.float64) * bin_x
    base_y = start_y + ph.to(tl.float64) * bin_y
    n_x = tl.maximum(samples_x, 1).to(tl.float64)
    n_y = tl.maximum(samples_y, 1).to(tl.float64)
    share = 1.0 / (n_x * n_y)
    # Of many samples those that can be inside: a box of 1e9 px would otherwise cost 1e18 steps.
    first_x, last_x = _between(x_low, x_high, base_x, bin_x / n_x, 0.5, samples_x)
    first_y, last_y = _between(y_low, y_high, base_y, bin_y / n_y, 0.5, samples_y)
    mask = (b < bins) & valid
    count_x = tl.where(mask, last_x - first_x, 0)
    count_y = tl.where(mask & (count_x > 0), last_y - first_y, 0)

    source = features + picture.to(tl.int64) * stride_n + _of_bins(channel.to(tl.int64) * stride_c, not BINS_FIRST)
    accumulate = tl.float64 if features.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([BLOCK_BINS, BLOCK_C] if BINS_FIRST else [BLOCK_C, BLOCK_BINS], accumulate)
    columns = tl.max(tl.where(count_y > 0, count_x, 0), axis=0)
    for i in range(0, tl.max(count_y, axis=0)):
        along_y = base_y + ((first_y + i).to(tl.float64) + 0.5) * bin_y / n_y
        for j in range(0, columns):
            along_x = base_x + ((first_x + j).to(tl.float64) + 0.5) * bin_x / n_x
            x, fx, inside_x = _pixel(along_y * sin + along_x * cos + center_x, width)
            y, fy, inside_y = _pixel(along_y * cos - along_x * sin + center_y, height)
            inside = (i < count_y) & (j < count_x) & inside_x & inside_y
            upper = tl.where(inside, (1.0 - fy) * share, 0.0)
            lower = tl.where(inside, fy * share, 0.0)
            at = source + _of_bins(y.to(tl.int64) * stride_h + x.to(tl.int64) * stride_w, BINS_FIRST)
            total = _add(total, at, upper * (1.0 - fx), channel_mask, BINS_FIRST)
            total = _add(total, at + stride_w, upper * fx, channel_mask, BINS_FIRST)
            total = _add(total, at + stride_h, lower * (1.0 - fx), channel_mask, BINS_FIRST)
            total = _add(total, at + stride_h + stride_w, lower * fx, channel_mask, BINS_FIRST)
    total = tl.where(valid, total, float("nan"))
    target = out + k * out_stride_k + _of_bins(channel.to(tl.int64) * out_stride_c, not BINS_FIRST)
    tl.store(
        target + _of_bins(b.to(tl.int64) * out_stride_bin, BINS_FIRST),
        total.to(out.dtype.element_ty),
        mask=_of_bins(b < bins, BINS_FIRST) & channel_mask,
        eviction_policy="evict_first",
    )


def _forward_launch(features: torch.Tensor, rois: RotatedRois, out: torch.Tensor) -> Launch:
    _, channels, height, width = features.shape
    k, _, pooled_h, pooled_w = out.shape
    bins = pooled_h * pooled_w
    channels_last = memory_format(features) == torch.channels_last
    if channels_last:
        # As many channels as there are, so that a position is computed for few blocks; 16 bytes of each pixel a
        # thread (twice in halves), so that four or eight loads are in flight. Other sizes spill a few of the doubles.
        elements = 2048 if features.element_size() == 2 else 2048 // features.element_size()
        block_c = min(elements // 2, triton.next_power_of_2(channels))
        block_bins = min(elements // block_c, triton.next_power_of_2(bins))
    else:
        # Lanes are bins; each thread takes four channels (two of doubles) of one bin, which share its position.
        block_bins = min(32, triton.next_power_of_2(bins))
        block_c = min(min(512, 2048 // features.element_size()) // block_bins, triton.next_power_of_2(channels))
    arguments = {
        "features": features,
        "out": out,
        "table": rois.table,
        "counts": rois.counts,
        "image": rois.image,
        **{f"stride_{d}": s for d, s in zip("nchw", features.stride(), strict=True)},
        "out_stride_k": out.stride(0),
        "out_stride_c": out.stride(1),
        "out_stride_bin": channels if channels_last else 1,
        "rois_count": k,
        "channels": channels,
        "height": height,
        "width": width,
        "pooled_h": pooled_h,
        "pooled_w": pooled_w,
        "BINS_FIRST": channels_last,
        "BLOCK_BINS": block_bins,
        "BLOCK_C": block_c,
    }
    vector_loads = channels_last and channels * features.element_size() % 16 == 0
    grid = (k * triton.cdiv(bins, block_bins) * triton.cdiv(channels, block_c),)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return Launch(roi_align_rotated_forward_kernel, grid, arguments, options, vector_loads)


def _forward(input: torch.Tensor, rois: torch.Tensor, options: tuple) -> tuple[torch.Tensor, list[Launch]]:
    spatial_scale, pooled, sampling_ratio, aligned, clockwise = options
    batch, channels, height, width = input.shape
    size, layout = (rois.shape[0], channels, *pooled), memory_format(input)
    out = torch.empty(size, dtype=input.dtype, device=input.device, memory_format=layout)
    if out.numel() == 0:
        return out, []
    if input.numel() == 0:
        return out.zero_(), []
    prepared = rotated_rois(rois, spatial_scale, pooled, sampling_ratio, aligned, clockwise, (batch, height, width))
    return out, [prepared.launch, _forward_launch(input, prepared, out)]


def roi_align_rotated(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> torch.Tensor:
    """RoI Align of ``input [N, C, H, W]`` at ``rois [K, 6]``: ``[K, C, pooled_height, pooled_width]``."""
    options = spatial_scale, (pooled_height, pooled_width), sampling_ratio, aligned, clockwise
    out, launches = _forward(input, rois, options)
    run(input.device, launches)
    return out


def roi_align_rotated_backward(
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
    clockwise: bool,
) -> torch.Tensor:
    """Gradient of :func:`roi_align_rotated` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, C, H, W]``."""
    options = spatial_scale, (pooled_height, pooled_width), sampling_ratio, aligned, clockwise
    grad_input, launches = backward(grad, rois, (batch_size, channels, height, width), options)
    run(grad.device, launches)
    return grad_input


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            features = torch.empty((2, 256, 50, 64), dtype=dtype, device="meta", memory_format=layout)
            boxes = torch.float64 if dtype == torch.float64 else torch.float32
            rois = torch.empty((1000, 6), dtype=boxes, device="meta")
            name = f"{str(dtype)[6:]}-{'NHWC' if layout == torch.channels_last else 'NCHW'}"
            out, launches = _forward(features, rois, (0.25, (7, 7), 2, True, False))
            yield from ((f"forward-{name}", launch) for launch in launches)
            _, launches = backward(out, rois, tuple(features.shape), (0.25, (7, 7), 0, False, True))
            yield from ((f"backward-{name}", launch) for launch in launches)
