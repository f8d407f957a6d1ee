"""Non-maximum suppression of a batch, with results of fixed shape: the kernels of nms, and one that packs flags."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._score_order import keys_launch
from structops.triton_kernels.nms import compute_dtype, suppress, suppress_launches


@triton.jit(do_not_specialize=["n", "max_output"])
def nms_compact_kernel(
    keep,  # [B, N] int8 by rank
    by_score,  # [B, N] int64: box of each rank
    indices,  # [B, max_output] int64, written
    counts,  # [B] int64, written
    n,
    max_output,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    total = tl.cast(n, tl.int32) * 0
    begin = total
    while (begin < n) & (total < max_output):
        rank = begin + lane
        kept = (tl.load(keep + image * n + rank, mask=rank < n, other=0) != 0).to(tl.int32)
        at = total + tl.cumsum(kept, 0) - kept
        box = tl.load(by_score + image * n + rank, mask=kept != 0, other=0)
        tl.store(indices + image * max_output + at, box, mask=(kept != 0) & (at < max_output))
        total += tl.sum(kept, 0)
        begin += BLOCK
    total = tl.minimum(total, max_output)
    tl.store(counts + image, total.to(tl.int64))
    for first in range(total // BLOCK * BLOCK, max_output, BLOCK):
        at = first + lane
        padding = tl.full([BLOCK], -1, tl.int64)
        tl.store(indices + image * max_output + at, padding, mask=(at >= total) & (at < max_output))


def _compact_launch(keep: torch.Tensor, by_score: torch.Tensor, max_output: int):
    images, n = keep.shape
    indices = torch.empty((images, max_output), dtype=torch.int64, device=keep.device)
    counts = torch.empty(images, dtype=torch.int64, device=keep.device)
    arguments = {"keep": keep, "by_score": by_score, "indices": indices, "counts": counts}
    arguments |= {"n": n, "max_output": max_output, "BLOCK": 1024}
    return indices, counts, Launch(nms_compact_kernel, (images,), arguments, {"num_warps": 4})


def nms_padded(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor | None,
    valid: torch.Tensor | None,
    iou_threshold: float,
    max_output: int,
    score_threshold: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices ``[B, max_output]`` of the boxes ``[B, N, 4]`` kept, -1 after the counts ``[B]``."""
    counts = taking = None
    if valid is not None and valid.dtype == torch.bool:
        taking = valid.contiguous().view(torch.int8)
    elif valid is not None:
        counts = valid.long().contiguous()
    which = {"counts": counts, "taking": taking, "score_threshold": score_threshold}
    by_score, keep = suppress(boxes, scores, idxs, iou_threshold, **which)
    indices, found, launch = _compact_launch(keep, by_score, max_output)
    run(boxes.device, [launch])
    return indices, found


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        images, n = 8, 5000
        boxes = torch.empty((images, n, 4), dtype=dtype, device="meta")
        scores = torch.empty((images, n), dtype=dtype, device="meta")
        order = torch.empty((images, n), dtype=torch.int64, device="meta")
        counts = torch.empty(images, dtype=torch.int64, device="meta")
        taking = torch.empty((images, n), dtype=torch.int8, device="meta")
        name = str(dtype)[6:]
        yield f"{name}-counts", keys_launch(scores, counts, None, 0.05)[1]
        keys, launch = keys_launch(scores, None, taking, None)
        yield f"{name}-mask", launch
        for ends in (None, torch.empty((images, n), dtype=torch.int32, device="meta")):
            keep, launches = suppress_launches(boxes, order, keys, ends, compute_dtype(boxes, scores), 0.5)
            yield from ((f"{name}{'' if ends is None else '-classes'}", launch) for launch in launches)
        yield name, _compact_launch(keep, order, 300)[2]
