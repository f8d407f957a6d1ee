"""The backward of RoI Align of rotated boxes: gathers bins by pixel.

A bit mask for each tile of the map says which RoIs reach into it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch
from structops.triton_kernels._rotated_rois import _between, _local, _pixel, _roi, rotated_rois

from structops._layout import memory_format


@triton.jit(do_not_specialize=["tiles_y", "tiles_x", "rois_count", "words"])
def roi_align_rotated_candidates_kernel(
    image,  # [K] int32
    bounds,  # [4, K] int32
    candidates,  # [N * tiles_y * tiles_x, words] int32, written: bit k % 32 of word k // 32: RoI k reaches the tile
    tiles_y,
    tiles_x,
    rois_count,
    words,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    WORDS: tl.constexpr,
):
    tile = tl.program_id(0)
    picture = tile // (tiles_y * tiles_x)
    y0 = tile // tiles_x % tiles_y * TILE_Y
    x0 = tile % tiles_x * TILE_X
    word = tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    lane = tl.arange(0, 32)
    k = word[:, None] * 32 + lane[None, :]
    mask = k < rois_count
    hit = tl.load(image + k, mask=mask, other=-1) == picture
    hit = hit & (tl.load(bounds + k, mask=mask, other=0) < x0 + TILE_X)
    hit = hit & (tl.load(bounds + rois_count + k, mask=mask, other=-1) >= x0)
    hit = hit & (tl.load(bounds + 2 * rois_count + k, mask=mask, other=0) < y0 + TILE_Y)
    hit = hit & (tl.load(bounds + 3 * rois_count + k, mask=mask, other=-1) >= y0)
    bits = tl.sum(hit.to(tl.int32) << lane[None, :], axis=1)
    tl.store(candidates + tile.to(tl.int64) * words + word, bits, mask=word < words)


@triton.jit(do_not_specialize=["rois_count", "pooled_h", "pooled_w", "tiles_y", "tiles_x", "words"])
def roi_align_rotated_backward_kernel(
    grad,  # [K, C, PH, PW]
    grad_input,  # [N, C, H, W], written
    candidates,  # [N * tiles_y * tiles_x, words] int32
    table,  # [ROWS, K] float64
    counts,  # [2, K] int32
    grad_stride_k,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    rois_count,
    channels,
    height,
    width,
    pooled_h,
    pooled_w,
    tiles_y,
    tiles_x,
    words,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pid = tl.program_id(0)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = channel < channels
    tile = pid // channel_blocks
    picture = tile // (tiles_y * tiles_x)
    y0 = tile // tiles_x % tiles_y * TILE_Y
    x0 = tile % tiles_x * TILE_X
    y = y0 + tl.arange(0, TILE_Y)
    x = x0 + tl.arange(0, TILE_X)
    height = height.to(tl.int32)
    width = width.to(tl.int32)
    # The samples that touch the tile.
    left = x0.to(tl.float64) - 1.0
    right = tl.minimum(x0 + TILE_X, width).to(tl.float64)
    top = y0.to(tl.float64) - 1.0
    bottom = tl.minimum(y0 + TILE_Y, height).to(tl.float64)

    accumulate = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([TILE_Y, TILE_X, BLOCK_C], accumulate)
    source = grad + channel.to(tl.int64) * grad_stride_c
    for word in range(words):
        bits = tl.load(candidates + tile.to(tl.int64) * words + word)
        while bits != 0:
            # The lowest set bit is a power of two: its number is the exponent of its float.
            lowest = bits & -bits
            k = word * 32 + ((lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) & 255) - 127
            k = k.to(tl.int64)
            bits = bits ^ lowest
            center_x, center_y, cos, sin, start_x, bin_x, start_y, bin_y, samples_x, samples_y = _roi(
                table, counts, k, rois_count
            )
            x_low, x_high, y_low, y_high = _local(center_x, center_y, cos, sin, left, right, top, bottom)
            first_pw, last_pw = _between(x_low, x_high, start_x, bin_x, 0.0, pooled_w)
            first_ph, last_ph = _between(y_low, y_high, start_y, bin_y, 0.0, pooled_h)
            n_x = tl.maximum(samples_x, 1).to(tl.float64)
            n_y = tl.maximum(samples_y, 1).to(tl.float64)
            share = 1.0 / (n_x * n_y)
            for row in range(0, last_ph - first_ph):
                ph = first_ph + row
                base_y = start_y + ph.to(tl.float64) * bin_y
                first_y, last_y = _between(y_low, y_high, base_y, bin_y / n_y, 0.5, samples_y)
                for column in range(0, last_pw - first_pw):
                    pw = first_pw + column
                    base_x = start_x + pw.to(tl.float64) * bin_x
                    first_x, last_x = _between(x_low, x_high, base_x, bin_x / n_x, 0.5, samples_x)
                    weight = tl.zeros([TILE_Y, TILE_X], tl.float64)
                    for i in range(0, last_y - first_y):
                        along_y = base_y + ((first_y + i).to(tl.float64) + 0.5) * bin_y / n_y
                        for j in range(0, last_x - first_x):
                            along_x = base_x + ((first_x + j).to(tl.float64) + 0.5) * bin_x / n_x
                            px, fx, inside_x = _pixel(along_y * sin + along_x * cos + center_x, width)
                            py, fy, inside_y = _pixel(along_y * cos - along_x * sin + center_y, height)
                            each = tl.where(inside_x & inside_y, share, 0.0)
                            wx = tl.where(x == px, 1.0 - fx, tl.where(x == px + 1, fx, 0.0))
                            wy = tl.where(y == py, (1.0 - fy) * each, tl.where(y == py + 1, fy * each, 0.0))
                            weight += wy[:, None] * wx[None, :]
                    # Most bins around a tile miss it.
                    if tl.max(tl.max(weight, axis=1), axis=0) > 0.0:
                        g = tl.load(
                            source + (k * grad_stride_k + ph * grad_stride_h + pw * grad_stride_w),
                            mask=channel_mask,
                            other=0.0,
                        ).to(accumulate)
                        w = weight.to(accumulate)[:, :, None]
                        total = tl.fma(w + tl.zeros_like(total), g[None, None, :] + tl.zeros_like(total), total)
    # Every pixel is written once, zeros included: the output needs no clearing.
    position = picture.to(tl.int64) * stride_n + (y.to(tl.int64) * stride_h)[:, None] + x.to(tl.int64) * stride_w
    tl.store(
        grad_input + position[:, :, None] + (channel.to(tl.int64) * stride_c)[None, None, :],
        total.to(grad_input.dtype.element_ty),
        mask=((y < height)[:, None] & (x < width)[None, :])[:, :, None] & channel_mask[None, None, :],
        eviction_policy="evict_first",
    )


def backward(
    grad: torch.Tensor, rois: torch.Tensor, shape: tuple[int, int, int, int], options: tuple
) -> tuple[torch.Tensor, list[Launch]]:
    spatial_scale, pooled, sampling_ratio, aligned, clockwise = options
    batch, channels, height, width = shape
    k, layout = rois.shape[0], memory_format(grad)
    grad_input = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    if grad_input.numel() == 0:
        return grad_input, []
    if grad.numel() == 0:
        return grad_input.zero_(), []
    prepared = rotated_rois(rois, spatial_scale, pooled, sampling_ratio, aligned, clockwise, (batch, height, width))
    # As for RoI Align: small tiles, since most of what surrounds a RoI misses it; a program is one warp. Half as many
    # channels as there: the RoI's doubles take some 60 registers.
    channels_last = layout == torch.channels_last
    tile = {"TILE_Y": 4, "TILE_X": 4 if channels_last else 8}
    accumulate = max(grad.element_size(), 4)
    block_c = min((64 if channels_last else 32) * 4 // accumulate, triton.next_power_of_2(channels))
    tiles_y, tiles_x = triton.cdiv(height, tile["TILE_Y"]), triton.cdiv(width, tile["TILE_X"])
    tile_count, words = batch * tiles_y * tiles_x, triton.cdiv(k, 32)
    candidates = torch.empty((tile_count, words), dtype=torch.int32, device=grad.device)
    counts = {"tiles_y": tiles_y, "tiles_x": tiles_x, "rois_count": k, "words": words}
    find = {"image": prepared.image, "bounds": prepared.bounds, "candidates": candidates, **counts, **tile, "WORDS": 8}
    gather = {
        "grad": grad,
        "grad_input": grad_input,
        "candidates": candidates,
        "table": prepared.table,
        "counts": prepared.counts,
        **{f"grad_stride_{d}": s for d, s in zip("kchw", grad.stride(), strict=True)},
        **{f"stride_{d}": s for d, s in zip("nchw", grad_input.stride(), strict=True)},
        "channels": channels,
        "height": height,
        "width": width,
        "pooled_h": pooled[0],
        "pooled_w": pooled[1],
        **counts,
        **tile,
        "BLOCK_C": block_c,
    }
    return grad_input, [
        prepared.launch,
        Launch(roi_align_rotated_candidates_kernel, (tile_count, triton.cdiv(words, 8)), find, {"num_warps": 4}),
        Launch(
            roi_align_rotated_backward_kernel,
            (tile_count * triton.cdiv(channels, block_c),),
            gather,
            {"num_warps": 1, "enable_fp_fusion": False},
        ),
    ]
