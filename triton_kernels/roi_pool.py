"""RoI Pool, forward and backward.

The forward gathers pixels by bin, a tile of bins and channels at a time; a program finds the edges of its bins itself,
which is a few integer operations a bin. See :mod:`structops.triton_kernels._roi_pool_backward` for the backward.
Neither uses atomics, so results are the same bit for bit from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, multiprocessors, run
from structops.triton_kernels._roi_pool_axes import _bins, _roi
from structops.triton_kernels._roi_pool_backward import backward

from structops._layout import memory_format


@triton.jit
def _of_bins(x, BINS_FIRST: tl.constexpr):
    """A vector over bins as a column or a row of the tile: consecutive lanes lie along its last axis."""
    return x[:, None] if BINS_FIRST else x[None, :]


@triton.jit
def _take(best, at, value, index, here):
    """The larger of best and value, or the first NaN, and where it was; only where ``here``."""
    more = here & ((value > best) | (value != value)) & (best == best)
    return tl.where(more, value, best), tl.where(more, index, at)


@triton.jit(
    do_not_specialize=["scale_bits", "batch", "height", "width", "pooled_h", "pooled_w", "splits", "tiles_per_program"]
)
def roi_pool_forward_kernel(
    features,  # [N, C, H, W]
    rois,  # [K, 5] (batch index, x1, y1, x2, y2)
    out,  # [K, C, PH, PW], written
    argmax,  # [K, C, PH, PW] int32, written; or None
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    roi_stride,
    coordinate_stride,
    out_stride_k,
    out_stride_c,
    out_stride_bin,  # from (ph, pw) to the next in row order
    scale_bits,
    batch,
    channels,
    height,
    width,
    pooled_h,
    pooled_w,
    splits,  # programs that share a RoI's bins
    tiles_per_program,
    MAXIMUM: tl.constexpr,  # the type that values are compared in
    BINS_FIRST: tl.constexpr,  # the tile is [bins, channels] and not [channels, bins]
    BLOCK_BINS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Neighbouring programs share a RoI, and so the map's lines.
    pid = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = _of_bins(channel < channels, not BINS_FIRST)
    split = pid // channel_blocks % splits
    k = (pid // channel_blocks // splits).to(tl.int64)

    picture, start_y, length_y, start_x, length_x = _roi(rois, k, roi_stride, coordinate_stride, scale_bits, batch)
    valid = picture >= 0
    source = features + picture.to(tl.int64) * stride_n + _of_bins(channel.to(tl.int64) * stride_c, not BINS_FIRST)
    target = k * out_stride_k + _of_bins(channel.to(tl.int64) * out_stride_c, not BINS_FIRST)
    bins = pooled_h * pooled_w
    for tile in range(split * tiles_per_program, (split + 1) * tiles_per_program):
        b = tile * BLOCK_BINS + tl.arange(0, BLOCK_BINS)
        y0, y1 = _bins(start_y, length_y, b // pooled_w, pooled_h, height)
        x0, x1 = _bins(start_x, length_x, b % pooled_w, pooled_w, width)
        some = (b < bins) & valid & (y0 < y1) & (x0 < x1)
        y1 = tl.where(some, y1, y0)
        x1 = tl.where(some, x1, x0)
        # A bin starts with its first pixel, which the loop then meets again, to no effect.
        corner = source + _of_bins(y0.to(tl.int64) * stride_h + x0.to(tl.int64) * stride_w, BINS_FIRST)
        best = tl.load(corner, mask=_of_bins(some, BINS_FIRST) & channel_mask, other=0.0).to(MAXIMUM)
        at = _of_bins(tl.where(some, y0 * width + x0, -1), BINS_FIRST) + tl.zeros(best.shape, tl.int32)
        for i in range(0, tl.max(y1 - y0, axis=0)):
            inside_y = y0 + i < y1
            row = corner + i * tl.cast(stride_h, tl.int64)
            number = (y0 + i) * width + x0
            # Two columns at a time: their loads are independent, so both are in flight together.
            for j in range(0, tl.max(x1 - x0, axis=0), 2):
                in0 = _of_bins(inside_y & (x0 + j < x1), BINS_FIRST) & channel_mask
                in1 = _of_bins(inside_y & (x0 + j + 1 < x1), BINS_FIRST) & channel_mask
                v0 = tl.load(row + j * tl.cast(stride_w, tl.int64), mask=in0, other=0.0).to(MAXIMUM)
                v1 = tl.load(row + (j + 1) * tl.cast(stride_w, tl.int64), mask=in1, other=0.0).to(MAXIMUM)
                best, at = _take(best, at, v0, _of_bins(number + j, BINS_FIRST), in0)
                best, at = _take(best, at, v1, _of_bins(number + j + 1, BINS_FIRST), in1)
        best = tl.where(valid, best, float("nan"))
        # Written once and not read here: leave the cache to the features.
        position = target + _of_bins(b.to(tl.int64) * out_stride_bin, BINS_FIRST)
        mask = _of_bins(b < bins, BINS_FIRST) & channel_mask
        tl.store(out + position, best.to(out.dtype.element_ty), mask=mask, eviction_policy="evict_first")
        if argmax is not None:
            tl.store(argmax + position, at, mask=mask, eviction_policy="evict_first")


def _forward(
    input: torch.Tensor, rois: torch.Tensor, spatial_scale: float, pooled: tuple[int, int], with_argmax: bool
) -> tuple[torch.Tensor, torch.Tensor, list[Launch]]:
    batch, channels, height, width = input.shape
    pooled_h, pooled_w = pooled
    k, bins, layout, device = rois.shape[0], pooled_h * pooled_w, memory_format(input), input.device
    out = torch.empty((k, channels, *pooled), dtype=input.dtype, device=device, memory_format=layout)
    argmax = torch.empty(0, dtype=torch.int32, device=device)
    if with_argmax:
        argmax = torch.empty(out.shape, dtype=torch.int32, device=device, memory_format=layout)
    if out.numel() == 0:
        return out, argmax, []
    channels_last = layout == torch.channels_last
    if channels_last:
        # A tile of 4 KiB of features is two 16-byte loads a pixel and thread.
        elements = 4096 // input.element_size()
        block_c = min(elements // 4, triton.next_power_of_2(channels))
        block_bins = min(elements // block_c, triton.next_power_of_2(bins))
    else:
        # Lanes are bins, whose pixels are neighbours along x; each thread takes four channels (two of doubles).
        block_bins = min(32, triton.next_power_of_2(bins))
        block_c = min(min(512, 2048 // input.element_size()) // block_bins, triton.next_power_of_2(channels))
    channel_blocks, bin_tiles = triton.cdiv(channels, block_c), triton.cdiv(bins, block_bins)
    # Bins of a RoI share pixels, so keep them in one program, as far as 8 programs a multiprocessor allow.
    splits = min(bin_tiles, triton.cdiv(8 * multiprocessors(device), k * channel_blocks))
    arguments = {
        "features": input,
        "rois": rois,
        "out": out,
        "argmax": argmax if with_argmax else None,
        **{f"stride_{d}": s for d, s in zip("nchw", input.stride(), strict=True)},
        "roi_stride": rois.stride(0),
        "coordinate_stride": rois.stride(1),
        "out_stride_k": out.stride(0),
        "out_stride_c": out.stride(1),
        "out_stride_bin": channels if channels_last else 1,
        "scale_bits": double_bits(spatial_scale),
        "batch": batch,
        "channels": channels,
        "height": height,
        "width": width,
        "pooled_h": pooled_h,
        "pooled_w": pooled_w,
        "splits": splits,
        "tiles_per_program": triton.cdiv(bin_tiles, splits),
        "MAXIMUM": tl.float64 if input.dtype == torch.float64 else tl.float32,
        "BINS_FIRST": channels_last,
        "BLOCK_BINS": block_bins,
        "BLOCK_C": block_c,
    }
    vector_loads = channels_last and channels * input.element_size() % 16 == 0
    # No fused multiply-adds: a corner is rounded where the product is.
    options = {"num_warps": 4, "enable_fp_fusion": False}
    grid = (k * splits * channel_blocks,)
    return out, argmax, [Launch(roi_pool_forward_kernel, grid, arguments, options, vector_loads)]


def roi_pool(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    with_argmax: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """RoI Pool of ``input [N, C, H, W]`` at ``rois [K, 5]``: ``[K, C, pooled_height, pooled_width]``, argmax."""
    out, argmax, launches = _forward(input, rois, spatial_scale, (pooled_height, pooled_width), with_argmax)
    run(input.device, launches)
    return out, argmax


def roi_pool_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
) -> torch.Tensor:
    """Gradient of :func:`roi_pool` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, C, H, W]``."""
    grad_input, launches = backward(grad, rois, argmax, spatial_scale, (batch_size, channels, height, width))
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
            for with_argmax in (False, True):
                out, argmax, launches = _forward(features, rois, 0.25, (7, 7), with_argmax)
                kind = "training" if with_argmax else "inference"
                yield from ((f"forward-{name}-{kind}", launch) for launch in launches)
            _, launches = backward(out, rois, argmax, 0.25, tuple(features.shape))
            yield from ((f"backward-{name}", launch) for launch in launches)
