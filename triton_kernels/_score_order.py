"""The order of boxes by their scores, for every op that suppresses: integer keys that sort as scores have to.

Falling, -0.0 equal to 0.0, NaN below -inf, and below that the boxes that take no part; a stable sort then breaks ties
by the lower index.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits


@triton.jit(do_not_specialize=["n", "threshold_bits"])
def nms_keys_kernel(
    scores,  # [B, N]
    counts,  # [B] int64: the first so many boxes take part, or None
    taking,  # [B, N] int8: which boxes take part, or None
    keys,  # [B, N] int32, or int64 for doubles, written: in the order of the scores; NaN below -inf, then the others
    image_stride,
    stride,
    threshold_bits,
    n,
    BY_SCORE: tl.constexpr,  # only scores above the threshold take part
    BLOCK: tl.constexpr,
):
    tiles = tl.cdiv(n, BLOCK)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    i = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    score = tl.load(scores + image * image_stride + i.to(tl.int64) * stride, mask=mask, other=0.0)
    takes = mask
    if BY_SCORE:
        takes = takes & (score.to(tl.float64) > threshold_bits.to(tl.int64).to(tl.float64, bitcast=True))
    if counts is not None:
        takes = takes & (i < tl.load(counts + image))
    if taking is not None:
        takes = takes & (tl.load(taking + image * n + i, mask=mask, other=0) != 0)
    if keys.dtype.element_ty == tl.int64:
        bits = score.to(tl.int64, bitcast=True)
        lowest = -0x8000000000000000
        magnitude = 0x7FFFFFFFFFFFFFFF
    else:
        score = score.to(tl.float32)
        bits = score.to(tl.int32, bitcast=True)
        lowest = -0x80000000
        magnitude = 0x7FFFFFFF
    key = tl.where(bits < 0, bits ^ magnitude, bits)
    key = tl.where(score == 0.0, 0, key)  # -0.0 ties with 0.0
    key = tl.where(score != score, lowest + 1, key)
    tl.store(keys + image * n + i, tl.where(takes, key, lowest), mask=mask)


def keys_launch(
    scores: torch.Tensor,  # [B, N]
    counts: torch.Tensor | None = None,
    taking: torch.Tensor | None = None,
    score_threshold: float | None = None,
) -> tuple[torch.Tensor, Launch]:
    """Keys ``[B, N]`` whose falling order is that of the scores, and what computes them."""
    images, n = scores.shape
    dtype = torch.int64 if scores.dtype == torch.float64 else torch.int32
    keys = torch.empty((images, n), dtype=dtype, device=scores.device)
    arguments = {
        "scores": scores,
        "counts": counts,
        "taking": taking,
        "keys": keys,
        "image_stride": scores.stride(0),
        "stride": scores.stride(1),
        "threshold_bits": double_bits(score_threshold or 0.0),
        "n": n,
        "BY_SCORE": score_threshold is not None,
        "BLOCK": 1024,
    }
    return keys, Launch(nms_keys_kernel, (images * triton.cdiv(n, 1024),), arguments, {"num_warps": 4})
