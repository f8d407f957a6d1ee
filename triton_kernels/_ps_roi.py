"""Position-sensitive RoI pooling, forward and backward of both ops: they differ in the tables of weights alone.

Class c and bin (ph, pw) have channel ``(c * PH + ph) * PW + pw`` of the map to themselves, so neither kernel can load
16 bytes of channels for one bin. Each lane has a bin of its own instead, and reads its own weights; those lie in the
cache, some hundred bytes a RoI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch
from structops.triton_kernels._roi_align_backward import roi_align_candidates_kernel
from structops.triton_kernels._roi_axes import RoiAxes, weight_dtype

from structops._layout import memory_format

#: tables of a map (N, H, W) in a weight type, for tiles of pixels (height, width) or none
Axes = Callable[[tuple[int, int, int], torch.dtype, tuple[int, int] | None], RoiAxes]


@triton.jit
def _entry(index, weight, start, first_pixel, j, mask, DENSE: tl.constexpr):
    """Pixel and weight of entry j of each bin; weight zero where there is none."""
    value = tl.load(weight + start + j, mask=mask, other=0.0)
    pixel = first_pixel + j if DENSE else tl.load(index + start + j, mask=mask, other=0)
    return pixel.to(tl.int64), value


@triton.jit
def _weighted(row, pixel, weight, stride_w, mask):
    """Weight times pixel. Where the weight is zero, the pixel is not read."""
    features = tl.load(row + pixel * stride_w, mask=mask & (weight != 0.0), other=0.0)
    return weight * features.to(weight.dtype)


@triton.jit(do_not_specialize=["classes", "pooled_h", "pooled_w", "slots", "blocks"])
def ps_roi_forward_kernel(
    features,  # [N, C * PH * PW, H, W]
    out,  # [K, C, PH, PW], written
    image,  # [K] int32
    spans,  # [K, PH + PW, 3] int32
    index,  # [K, slots] int32
    weight,  # [K, slots]
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    out_stride_c,
    out_stride_bin,  # from (ph, pw) to the next in row order
    classes,
    pooled_h,
    pooled_w,
    slots,
    blocks,  # programs of a RoI
    DENSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    k = (tl.program_id(0) // blocks).to(tl.int64)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    bins = pooled_h * pooled_w
    picture = tl.load(image + k)
    valid = picture >= 0
    present = channel < classes * bins
    mask = present & valid
    b = channel % bins
    ph = b // pooled_w
    pw = b - ph * pooled_w
    span = spans + k * (pooled_h + pooled_w) * 3
    if not DENSE:
        index += k * slots
    weight += k * slots
    start_y = tl.load(span + ph * 3, mask=mask, other=0)
    count_y = tl.load(span + ph * 3 + 1, mask=mask, other=0)
    first_y = tl.load(span + ph * 3 + 2, mask=mask, other=0)
    start_x = tl.load(span + (pooled_h + pw) * 3, mask=mask, other=0)
    count_x = tl.load(span + (pooled_h + pw) * 3 + 1, mask=mask, other=0)
    first_x = tl.load(span + (pooled_h + pw) * 3 + 2, mask=mask, other=0)
    source = features + picture.to(tl.int64) * stride_n + channel.to(tl.int64) * stride_c
    total = tl.zeros([BLOCK], weight.dtype.element_ty)
    # Four columns at a time: their loads are independent, so all are in flight together.
    for j in range(0, tl.max(count_x, axis=0), 4):
        x0, w0 = _entry(index, weight, start_x, first_x, j, mask & (j < count_x), DENSE)
        x1, w1 = _entry(index, weight, start_x, first_x, j + 1, mask & (j + 1 < count_x), DENSE)
        x2, w2 = _entry(index, weight, start_x, first_x, j + 2, mask & (j + 2 < count_x), DENSE)
        x3, w3 = _entry(index, weight, start_x, first_x, j + 3, mask & (j + 3 < count_x), DENSE)
        for i in range(tl.max(count_y, axis=0)):
            y, wy = _entry(index, weight, start_y, first_y, i, mask & (i < count_y), DENSE)
            row = source + y * stride_h
            used = wy != 0.0
            line = _weighted(row, x0, w0, stride_w, used) + _weighted(row, x1, w1, stride_w, used)
            line += _weighted(row, x2, w2, stride_w, used) + _weighted(row, x3, w3, stride_w, used)
            total += wy * line
    total = tl.where(valid, total, float("nan"))
    target = out + k * classes * bins + (channel // bins).to(tl.int64) * out_stride_c + b * out_stride_bin
    tl.store(target, total.to(out.dtype.element_ty), mask=present)


@triton.jit(do_not_specialize=["classes", "pooled_h", "pooled_w", "slots", "tiles_y", "tiles_x", "words"])
def ps_roi_backward_kernel(
    grad,  # [K, C, PH, PW]
    grad_input,  # [N, C * PH * PW, H, W], written
    candidates,  # [N * tiles_y * tiles_x, words] int32: bit k % 32 of word k // 32: RoI k reaches the tile
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
    classes,
    height,
    width,
    pooled_h,
    pooled_w,
    slots,
    tiles_y,
    tiles_x,
    words,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pid = tl.program_id(0)
    bins = pooled_h * pooled_w
    channels = classes * bins
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    channel = (pid % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    channel_mask = channel < channels
    b = channel % bins
    ph = b // pooled_w
    pw = b - ph * pooled_w
    tile = pid // channel_blocks
    picture = tile // (tiles_y * tiles_x)
    y0 = tile // tiles_x % tiles_y * TILE_Y
    x0 = tile % tiles_x * TILE_X
    y = y0 + tl.arange(0, TILE_Y)
    x = x0 + tl.arange(0, TILE_X)

    total = tl.zeros([TILE_Y, TILE_X, BLOCK_C], weight.dtype.element_ty)
    source = grad + (channel // bins).to(tl.int64) * grad_stride_c + ph * grad_stride_h + pw * grad_stride_w
    for word in range(words):
        bits = tl.load(candidates + tile.to(tl.int64) * words + word)
        while bits != 0:
            # The lowest set bit is a power of two: its number is the exponent of its float.
            lowest = bits & -bits
            k = word * 32 + ((lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) & 255) - 127
            k = k.to(tl.int64)
            bits = bits ^ lowest
            span = spans + k * (pooled_h + pooled_w) * 3
            bin_weights = weight + k * slots
            start_y = tl.load(span + ph * 3)
            count_y = tl.load(span + ph * 3 + 1)
            first_y = tl.load(span + ph * 3 + 2)
            start_x = tl.load(span + (pooled_h + pw) * 3)
            count_x = tl.load(span + (pooled_h + pw) * 3 + 1)
            first_x = tl.load(span + (pooled_h + pw) * 3 + 2)
            # A lane's bin reaches the tile or is not read; most do not.
            reaches = channel_mask & (first_y < y0 + TILE_Y) & (first_y + count_y > y0)
            reaches = reaches & (first_x < x0 + TILE_X) & (first_x + count_x > x0)
            g = tl.load(source + k * grad_stride_k, mask=reaches, other=0.0).to(total.dtype)
            entry_y = y[:, None] - first_y[None, :]
            inside_y = reaches[None, :] & (entry_y >= 0) & (entry_y < count_y[None, :])
            wy = tl.load(bin_weights + start_y[None, :] + entry_y, mask=inside_y, other=0.0)
            entry_x = x[:, None] - first_x[None, :]
            inside_x = reaches[None, :] & (entry_x >= 0) & (entry_x < count_x[None, :])
            wx = tl.load(bin_weights + start_x[None, :] + entry_x, mask=inside_x, other=0.0)
            total += wy[:, None, :] * (wx * g[None, :])[None, :, :]
    # Every pixel is written once, zeros included: the output needs no clearing.
    position = picture.to(tl.int64) * stride_n + (y.to(tl.int64) * stride_h)[:, None] + x.to(tl.int64) * stride_w
    tl.store(
        grad_input + position[:, :, None] + (channel.to(tl.int64) * stride_c)[None, None, :],
        total.to(grad_input.dtype.element_ty),
        mask=((y < height)[:, None] & (x < width)[None, :])[:, :, None] & channel_mask,
    )


def forward(input: torch.Tensor, axes_of: Axes, k: int, pooled: tuple[int, int]) -> tuple[torch.Tensor, list[Launch]]:
    """The output ``[k, C, PH, PW]``, allocated, and the launches that fill it."""
    batch, channels, height, width = input.shape
    bins = pooled[0] * pooled[1]
    classes = channels // bins
    layout = memory_format(input)
    out = torch.empty((k, classes, *pooled), dtype=input.dtype, device=input.device, memory_format=layout)
    if out.numel() == 0:
        return out, []
    axes = axes_of((batch, height, width), weight_dtype(input.dtype), None)
    block = min(256, triton.next_power_of_2(channels))
    blocks = triton.cdiv(channels, block)
    arguments = {
        "features": input,
        "out": out,
        "image": axes.image,
        "spans": axes.spans,
        "index": axes.index,
        "weight": axes.weight,
        **{f"stride_{d}": s for d, s in zip("nchw", input.stride(), strict=True)},
        "out_stride_c": 1 if layout == torch.channels_last else bins,
        "out_stride_bin": classes if layout == torch.channels_last else 1,
        "classes": classes,
        "pooled_h": pooled[0],
        "pooled_w": pooled[1],
        "slots": axes.weight.shape[1],
        "blocks": blocks,
        "DENSE": axes.index is None,
        "BLOCK": block,
    }
    return out, [axes.launch, Launch(ps_roi_forward_kernel, (k * blocks,), arguments, {"num_warps": 4})]


def backward(
    grad: torch.Tensor, axes_of: Axes, map_shape: tuple[int, int, int, int]
) -> tuple[torch.Tensor, list[Launch]]:
    """The gradient of ``map_shape``, allocated, and the launches that fill it from ``grad [K, C, PH, PW]``."""
    k, classes, pooled_h, pooled_w = grad.shape
    batch, channels, height, width = map_shape
    accumulate = weight_dtype(grad.dtype)
    layout = memory_format(grad)
    grad_input = torch.empty(map_shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    if grad_input.numel() == 0:
        return grad_input, []
    # As RoI Align's: small tiles, two of them beside each other where rows are written. Half its channels, as every
    # lane holds weights of its own: with as many the compiler took 220 registers, and with rows of 8 in one warp it
    # spilled.
    channels_last = layout == torch.channels_last
    tile_y, tile_x = tile = (4, 4) if channels_last else (4, 8)
    block_c = min((64 if channels_last else 32) * 4 // accumulate.itemsize, triton.next_power_of_2(channels))
    axes = axes_of((batch, height, width), accumulate, tile)
    tiles_y, tiles_x = triton.cdiv(height, tile_y), triton.cdiv(width, tile_x)
    words = triton.cdiv(k, 32)
    tile_count = batch * tiles_y * tiles_x
    candidates = torch.empty((tile_count, words), dtype=torch.int32, device=grad.device)
    counts = {"tiles_y": tiles_y, "tiles_x": tiles_x, "words": words}
    find = {
        "image": axes.image, "tiles": axes.tiles, "candidates": candidates, **counts, "rois_count": k, "WORDS": 8
    }  # fmt: skip
    gather = {
        "grad": grad,
        "grad_input": grad_input,
        "candidates": candidates,
        "spans": axes.spans,
        "weight": axes.weight,
        **{f"grad_stride_{d}": s for d, s in zip("kchw", grad.stride(), strict=True)},
        **{f"stride_{d}": s for d, s in zip("nchw", grad_input.stride(), strict=True)},
        "classes": classes,
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
    return grad_input, [
        axes.launch,
        Launch(roi_align_candidates_kernel, (tile_count, triton.cdiv(words, 8)), find, {"num_warps": 4}),
        Launch(
            ps_roi_backward_kernel,
            (tile_count * triton.cdiv(channels, block_c),),
            gather,
            {"num_warps": 1 if channels_last else 2},
        ),
    ]


def typical(axes_of: Callable[[torch.Tensor], Axes]) -> Iterator[tuple[str, Launch]]:
    """The launches of an R-FCN head, named; ``axes_of`` takes the boxes."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            features = torch.empty((1, 1029, 38, 63), dtype=dtype, device="meta", memory_format=layout)
            boxes = torch.float64 if dtype == torch.float64 else torch.float32
            axes = axes_of(torch.empty((300, 5), dtype=boxes, device="meta"))
            name = f"{str(dtype)[6:]}-{'NHWC' if layout == torch.channels_last else 'NCHW'}"
            out, launches = forward(features, axes, 300, (7, 7))
            yield from ((f"forward-{name}", launch) for launch in launches)
            _, launches = backward(out, axes, tuple(features.shape))
            yield from ((f"backward-{name}", launch) for launch in launches)
