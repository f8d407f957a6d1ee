"""RoI Align's backward: gathers bins by pixel, so every pixel of the gradient is written once, without atomics.

The map is cut into tiles. One kernel notes for each tile which RoIs reach into it, a bit each; a second walks those
bits and adds up.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch
from structops.triton_kernels._roi_axes import roi_axes, weight_dtype

from structops._layout import memory_format


@triton.jit(do_not_specialize=["tiles_y", "tiles_x", "rois_count", "words"])
def roi_align_candidates_kernel(
    image,  # [K] int32
    tiles,  # [tiles_y + tiles_x, K] int64
    candidates,  # [N * tiles_y * tiles_x, words] int32, written: bit k % 32 of word k // 32: RoI k reaches the tile
    tiles_y,
    tiles_x,
    rois_count,
    words,
    WORDS: tl.constexpr,
):
    tile = tl.program_id(0)
    picture = tile // (tiles_y * tiles_x)
    ty = tile // tiles_x % tiles_y
    tx = tile % tiles_x
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    lane = tl.arange(0, 32)
    k = word[:, None] * 32 + lane[None, :]
    mask = k < rois_count
    hit = tl.load(image + k, mask=mask, other=-1) == picture
    hit = hit & (tl.load(tiles + ty.to(tl.int64) * rois_count + k, mask=mask, other=0) != 0)
    hit = hit & (tl.load(tiles + (tiles_y + tx).to(tl.int64) * rois_count + k, mask=mask, other=0) != 0)
    bits = tl.sum(hit.to(tl.int32) << lane[None, :], axis=1)
    tl.store(candidates + tile.to(tl.int64) * words + word, bits, mask=word < words)


@triton.jit(do_not_specialize=["pooled_h", "pooled_w", "slots", "tiles_y", "tiles_x", "rois_count", "words"])
def roi_align_backward_kernel(
    grad,  # [K, C, PH, PW]
    grad_input,  # [N, C, H, W], written
    candidates,  # [N * tiles_y * tiles_x, words] int32
    tiles,  # [tiles_y + tiles_x, K] int64
    spans,  # [K, PH + PW, 3] int32
    weight,  # [K, slots]
    grad_stride_k,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    channels,
    height,
    width,
    pooled_h,
    pooled_w,
    slots,
    tiles_y,
    tiles_x,
    rois_count,
    words,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pid = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = (channel < channels)[None, None, :]
    tile = pid // channel_blocks
    picture = tile // (tiles_y * tiles_x)
    ty = tile // tiles_x % tiles_y
    tx = tile % tiles_x
    y = ty * TILE_Y + tl.arange(0, TILE_Y)
    x = tx * TILE_X + tl.arange(0, TILE_X)

    total = tl.zeros([TILE_Y, TILE_X, BLOCK_C], weight.dtype.element_ty)
    source = grad + (channel.to(tl.int64) * grad_stride_c)[None, None, :]
    for word in range(words):
        bits = tl.load(candidates + tile.to(tl.int64) * words + word)
        while bits != 0:
            # The lowest set bit is a power of two: its number is the exponent of its float.
            lowest = bits & -bits
            k = word * 32 + ((lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) & 255) - 127
            k = k.to(tl.int64)
            bits = bits ^ lowest
            range_y = tl.load(tiles + ty.to(tl.int64) * rois_count + k)
            range_x = tl.load(tiles + (tiles_y + tx).to(tl.int64) * rois_count + k)
            span = spans + k * (pooled_h + pooled_w) * 3
            bin_weights = weight + k * slots
            for ph in range((range_y & 0x7FFFFFFF).to(tl.int32), (range_y >> 32).to(tl.int32)):
                start_y = tl.load(span + ph * 3)
                count_y = tl.load(span + ph * 3 + 1)
                entry_y = y - tl.load(span + ph * 3 + 2)
                inside_y = (entry_y >= 0) & (entry_y < count_y)
                wy = tl.load(bin_weights + start_y + entry_y, mask=inside_y, other=0.0)
                # One row of bins along x first: the two sums are separable, which saves most of the multiplications.
                row = tl.zeros([1, TILE_X, BLOCK_C], weight.dtype.element_ty)
                for pw in range((range_x & 0x7FFFFFFF).to(tl.int32), (range_x >> 32).to(tl.int32)):
                    start_x = tl.load(span + (pooled_h + pw) * 3)
                    count_x = tl.load(span + (pooled_h + pw) * 3 + 1)
                    entry_x = x - tl.load(span + (pooled_h + pw) * 3 + 2)
                    inside_x = (entry_x >= 0) & (entry_x < count_x)
                    wx = tl.load(bin_weights + start_x + entry_x, mask=inside_x, other=0.0)
                    g = tl.load(
                        source + (k * grad_stride_k + ph * grad_stride_h + pw * grad_stride_w),
                        mask=channel_mask,
                        other=0.0,
                    )
                    row += wx[None, :, None] * g.to(row.dtype)
                total += wy[:, None, None] * row
    # Every pixel is written once, zeros included: the output needs no clearing.
    position = picture.to(tl.int64) * stride_n + (y.to(tl.int64) * stride_h)[:, None] + x.to(tl.int64) * stride_w
    tl.store(
        grad_input + position[:, :, None] + (channel.to(tl.int64) * stride_c)[None, None, :],
        total.to(grad_input.dtype.element_ty),
        mask=((y < height)[:, None] & (x < width)[None, :])[:, :, None] & channel_mask,
        eviction_policy="evict_first",
    )


def backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    map_shape: tuple[int, int, int, int],
    sampling_ratio: int,
    aligned: bool,
) -> tuple[torch.Tensor, list[Launch]]:
    """The gradient ``[N, C, H, W]``, allocated, and the launches that fill it from ``grad [K, C, PH, PW]``."""
    k, _, pooled_h, pooled_w = grad.shape
    batch, channels, height, width = map_shape
    accumulate = weight_dtype(grad.dtype)
    layout = memory_format(grad)
    grad_input = torch.empty(map_shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    if grad_input.numel() == 0:
        return grad_input, []
    # The smaller the tile, the less of it lies outside the bins that reach into it, and the more often a bin is read:
    # 4 x 4 is where the two costs meet for bins of 1 to 4 pixels. NCHW takes two for whole 32-byte sectors.
    # A program is one warp, whose lanes are channels, so nothing in its loops waits for another warp.
    channels_last = layout == torch.channels_last
    tile_y, tile_x = tile = (4, 4) if channels_last else (4, 8)
    block_c = min((128 if channels_last else 64) * 4 // accumulate.itemsize, triton.next_power_of_2(channels))
    axes = roi_axes(
        rois,
        spatial_scale,
        (pooled_h, pooled_w),
        sampling_ratio,
        aligned,
        (batch, height, width),
        accumulate,
        tile,
    )
    tiles_y, tiles_x = triton.cdiv(height, tile_y), triton.cdiv(width, tile_x)
    words = triton.cdiv(k, 32)
    tile_count = batch * tiles_y * tiles_x
    candidates = torch.empty((tile_count, words), dtype=torch.int32, device=grad.device)
    counts = {"tiles_y": tiles_y, "tiles_x": tiles_x, "rois_count": k, "words": words}
    find = {"image": axes.image, "tiles": axes.tiles, "candidates": candidates, **counts, "WORDS": 8}
    gather = {
        "grad": grad,
        "grad_input": grad_input,
        "candidates": candidates,
        "tiles": axes.tiles,
        "spans": axes.spans,
        "weight": axes.weight,
        **{f"grad_stride_{d}": s for d, s in zip("kchw", grad.stride(), strict=True)},
        **{f"stride_{d}": s for d, s in zip("nchw", grad_input.stride(), strict=True)},
        "channels": channels,
        "height": height,
        "width": width,
        "pooled_h": pooled_h,
        "pooled_w": pooled_w,
        "slots": axes.weight.shape[1],
        **counts,
        "TILE_Y": tile_y,
        "TILE_X": tile_x,
        "BLOCK_C": block_c,
    }
    vector_loads = channels_last and grad.dtype.itemsize >= 4
    return grad_input, [
        axes.launch,
        Launch(roi_align_candidates_kernel, (tile_count, triton.cdiv(words, 8)), find, {"num_warps": 4}),
        Launch(
            roi_align_backward_kernel,
            (tile_count * triton.cdiv(channels, block_c),),
            gather,
            {"num_warps": 1},
            vector_loads,
        ),
    ]
