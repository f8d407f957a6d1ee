"""RoI Pool's backward: gathers bins by pixel, so every pixel of the gradient is written once, without atomics.

As in RoI Align's, the map is cut into tiles, one kernel notes for each tile which RoIs reach into it, and another walks
them and adds up: a bin's gradient goes to the pixel of the tile whose number its argmax is, if there is one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits
from structops.triton_kernels._roi_align_backward import roi_align_candidates_kernel
from structops.triton_kernels._roi_pool_axes import _bins, _roi

from structops._layout import memory_format


@triton.jit(do_not_specialize=["scale_bits", "batch", "height", "width", "pooled_h", "pooled_w", "tiles_y", "tiles_x"])
def roi_pool_tiles_kernel(
    rois,  # [K, 5] (batch index, x1, y1, x2, y2)
    image,  # [K] int32, written: the image of each RoI; -1: it touches nothing
    tiles,  # [tiles_y + tiles_x, K] int64, written: bins that reach into a tile, first | end << 32
    roi_stride,
    coordinate_stride,
    scale_bits,
    batch,
    height,
    width,
    pooled_h,
    pooled_w,
    tiles_y,
    tiles_x,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    TILE_BLOCK: tl.constexpr,
    P: tl.constexpr,  # bins along the longer axis, rounded up
):
    k = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) == 1
    picture, start_y, length_y, start_x, length_x = _roi(rois, k, roi_stride, coordinate_stride, scale_bits, batch)
    if not columns:
        tl.store(image + k, picture)
    p = tl.arange(0, P)
    pooled = tl.where(columns, pooled_w, pooled_h)
    extent = tl.where(columns, width, height)
    first, last = _bins(tl.where(columns, start_x, start_y), tl.where(columns, length_x, length_y), p, pooled, extent)
    some = (p < pooled) & (first < last) & (picture >= 0)
    tile_size = tl.where(columns, TILE_X, TILE_Y)
    tile_count = tl.where(columns, tiles_x, tiles_y)
    for t0 in range(0, tile_count, TILE_BLOCK):
        tile = t0 + tl.arange(0, TILE_BLOCK)
        low_edge = (tile * tile_size)[:, None]
        hit = some[None, :] & (first[None, :] < low_edge + tile_size) & (last[None, :] > low_edge)
        begin = tl.min(tl.where(hit, p[None, :], P), axis=1).to(tl.int64)
        end = tl.max(tl.where(hit, p[None, :] + 1, 0), axis=1).to(tl.int64)
        row = (tl.where(columns, tiles_y, 0) + tile).to(tl.int64)
        packed = tl.where(end > 0, begin | (end << 32), 0)
        tl.store(tiles + row * tl.num_programs(0) + k, packed, mask=tile < tile_count)


@triton.jit(do_not_specialize=["tiles_y", "tiles_x", "rois_count", "words"])
def roi_pool_backward_kernel(
    grad,  # [K, C, PH, PW]
    argmax,  # [K, C, PH, PW] int32
    grad_input,  # [N, C, H, W], written
    candidates,  # [N * tiles_y * tiles_x, words] int32
    tiles,  # [tiles_y + tiles_x, K] int64
    grad_stride_k,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    argmax_stride_k,
    argmax_stride_c,
    argmax_stride_h,
    argmax_stride_w,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    channels,
    height,
    width,
    tiles_y,
    tiles_x,
    rois_count,
    words,
    SUM: tl.constexpr,
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
    ty = tile // tiles_x % tiles_y
    tx = tile % tiles_x
    y = ty * TILE_Y + tl.arange(0, TILE_Y)
    x = tx * TILE_X + tl.arange(0, TILE_X)
    # Pixels beyond the map's edge have the numbers of others; they are not written.
    pixel = (y[:, None] * width + x[None, :])[:, :, None]

    total = tl.zeros([TILE_Y, TILE_X, BLOCK_C], SUM)
    values = grad + channel.to(tl.int64) * grad_stride_c
    places = argmax + channel.to(tl.int64) * argmax_stride_c
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
            for ph in range((range_y & 0x7FFFFFFF).to(tl.int32), (range_y >> 32).to(tl.int32)):
                for pw in range((range_x & 0x7FFFFFFF).to(tl.int32), (range_x >> 32).to(tl.int32)):
                    from_grad = k * grad_stride_k + ph * grad_stride_h + pw * grad_stride_w
                    from_argmax = k * argmax_stride_k + ph * argmax_stride_h + pw * argmax_stride_w
                    g = tl.load(values + from_grad, mask=channel_mask, other=0.0).to(SUM)
                    at = tl.load(places + from_argmax, mask=channel_mask, other=-1)
                    total += tl.where(at[None, None, :] == pixel, g[None, None, :], 0.0)
    # Every pixel is written once, zeros included: the output needs no clearing.
    position = picture.to(tl.int64) * stride_n + (y.to(tl.int64) * stride_h)[:, None] + x.to(tl.int64) * stride_w
    tl.store(
        grad_input + position[:, :, None] + (channel.to(tl.int64) * stride_c)[None, None, :],
        total.to(grad_input.dtype.element_ty),
        mask=((y < height)[:, None] & (x < width)[None, :])[:, :, None] & channel_mask[None, None, :],
        eviction_policy="evict_first",
    )


def backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    spatial_scale: float,
    map_shape: tuple[int, int, int, int],
) -> tuple[torch.Tensor, list[Launch]]:
    """The gradient ``[N, C, H, W]``, allocated, and the launches that fill it from ``grad [K, C, PH, PW]``."""
    k, _, pooled_h, pooled_w = grad.shape
    batch, channels, height, width = map_shape
    layout, device = memory_format(grad), grad.device
    grad_input = torch.empty(map_shape, dtype=grad.dtype, device=device, memory_format=layout)
    if grad_input.numel() == 0:
        return grad_input, []
    # Tiles as in RoI Align's backward, for the same reasons. Comparing 16 pixels with a bin's argmax costs more than the
    # load beside it; a larger tile would compare more often, a smaller one load more often.
    channels_last = layout == torch.channels_last
    tile_y, tile_x = (4, 4) if channels_last else (4, 8)
    accumulate = torch.promote_types(grad.dtype, torch.float32)
    block_c = min((128 if channels_last else 64) * 4 // accumulate.itemsize, triton.next_power_of_2(channels))
    tiles_y, tiles_x = triton.cdiv(height, tile_y), triton.cdiv(width, tile_x)
    words, tile_count = triton.cdiv(k, 32), batch * tiles_y * tiles_x
    image = torch.empty(k, dtype=torch.int32, device=device)
    tiles = torch.empty((tiles_y + tiles_x, k), dtype=torch.int64, device=device)
    candidates = torch.empty((tile_count, words), dtype=torch.int32, device=device)
    p = triton.next_power_of_2(max(pooled_h, pooled_w))
    cut = {
        "rois": rois,
        "image": image,
        "tiles": tiles,
        "roi_stride": rois.stride(0),
        "coordinate_stride": rois.stride(1),
        "scale_bits": double_bits(spatial_scale),
        "batch": batch,
        "height": height,
        "width": width,
        "pooled_h": pooled_h,
        "pooled_w": pooled_w,
        "tiles_y": tiles_y,
        "tiles_x": tiles_x,
        "TILE_Y": tile_y,
        "TILE_X": tile_x,
        "TILE_BLOCK": max(1, 512 // p),
        "P": p,
    }
    counts = {"tiles_y": tiles_y, "tiles_x": tiles_x, "rois_count": k, "words": words}
    find = {"image": image, "tiles": tiles, "candidates": candidates, **counts, "WORDS": 8}
    gather = {
        "grad": grad,
        "argmax": argmax,
        "grad_input": grad_input,
        "candidates": candidates,
        "tiles": tiles,
        **{f"grad_stride_{d}": s for d, s in zip("kchw", grad.stride(), strict=True)},
        **{f"argmax_stride_{d}": s for d, s in zip("kchw", argmax.stride(), strict=True)},
        **{f"stride_{d}": s for d, s in zip("nchw", grad_input.stride(), strict=True)},
        "channels": channels,
        "height": height,
        "width": width,
        **counts,
        "SUM": tl.float64 if grad.dtype == torch.float64 else tl.float32,
        "TILE_Y": tile_y,
        "TILE_X": tile_x,
        "BLOCK_C": block_c,
    }
    return grad_input, [
        # No fused multiply-adds: a corner is rounded where the product is.
        Launch(roi_pool_tiles_kernel, (k, 2), cut, {"num_warps": max(1, min(8, p // 64)), "enable_fp_fusion": False}),
        Launch(roi_align_candidates_kernel, (tile_count, triton.cdiv(words, 8)), find, {"num_warps": 4}),
        Launch(
            roi_pool_backward_kernel,
            (tile_count * triton.cdiv(channels, block_c),),
            gather,
            {"num_warps": 1},
            channels_last and grad.dtype.itemsize >= 4,
        ),
    ]
