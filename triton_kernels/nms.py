"""Greedy non-maximum suppression.

Boxes are sorted by (class, score), so that a class is a run of neighbours: its *segment*, of which plain NMS has one.
Then, for each chunk of at most 8192 boxes:

1. *mask*: all pairs of the chunk, one bit each (8 MiB at most, however many boxes there are);
2. *scan*: the greedy decision, segment by segment in parallel, 64 boxes at a time within a segment;
3. *sweep*: the chunk's survivors against every later box of the same segment.

Each launch is for all images of a batch; plain NMS is a batch of one.

Nothing returns to the host before the size of the result, the one thing a dynamic shape needs to know. Block sizes are
fixed: the cost hardly depends on the data, and autotuning would time whole calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from structops.triton_kernels._launch import Launch, double_bits, round_down, run
from structops.triton_kernels._nms_kernels import (
    nms_gather_kernel,
    nms_mask_kernel,
    nms_scan_kernel,
    nms_sweep_kernel,
)
from structops.triton_kernels._score_order import keys_launch

_CHUNK = 8192
_CHUNK_OF_MANY = 2048  # of more than _FEW_IMAGES, so that the masks stay small: half a MiB each
_FEW_IMAGES = 4
_ROWS = 128  # two rows a thread: half the column loads per pair
_SWEEP = 128  # both boxes and survivors of a sweep program


def suppress_launches(
    boxes: torch.Tensor,  # [B, N, 4]
    order: torch.Tensor,  # [B, N]
    keys: torch.Tensor | None,  # [B, N]
    ends: torch.Tensor | None,  # [B, N]
    compute: torch.dtype,
    iou_threshold: float,
) -> tuple[torch.Tensor, list[Launch]]:
    """Flags ``[B, N]`` of the boxes kept, in ``order``, and what computes them."""
    (images, n), device = order.shape, boxes.device
    largest = _CHUNK if images <= _FEW_IMAGES else _CHUNK_OF_MANY
    rows, words = min(n, largest), triton.cdiv(min(n, largest), 64)
    sorted_boxes = torch.empty((images, 4, n), dtype=compute, device=device)
    removed = torch.empty((images, n), dtype=torch.int8, device=device)
    keep = torch.empty((images, n), dtype=torch.int8, device=device)
    mask = torch.empty((images, rows, words), dtype=torch.int64, device=device)
    gather = {
        "boxes": boxes,
        "order": order,
        "keys": keys,
        "sorted_boxes": sorted_boxes,
        "removed": removed,
        "image_stride": boxes.stride(0),
        "box_stride": boxes.stride(1),
        "coordinate_stride": boxes.stride(2),
        "n": n,
        "BLOCK": 256,
    }
    launches = [Launch(nms_gather_kernel, (images * triton.cdiv(n, 256),), gather, {"num_warps": 4})]
    pairs = {
        "sorted_boxes": sorted_boxes,
        "ends": ends,
        "threshold_bits": double_bits(round_down(iou_threshold, compute)),
        "n": n,
    }
    # A fused multiply-add would round the areas differently from the definition.
    exact = {"enable_fp_fusion": False}
    # Few distinct widths: each is a kernel to compile.
    padded_words = next(w for w in (16, 32, 128) if words <= w)
    for first in range(0, n, largest):
        last = min(first + largest, n)
        size = last - first
        chunk = {"first": first, "last": last}
        build = {**pairs, **chunk, "mask": mask, "rows": rows, "words": words, "ROWS": _ROWS}
        grid = (images, triton.cdiv(size, 64), triton.cdiv(size, _ROWS))
        launches.append(Launch(nms_mask_kernel, grid, build, {"num_warps": _ROWS // 64, **exact}))
        scan = {"mask": mask, "ends": ends, "removed": removed, "keep": keep, "n": n, **chunk}
        scan |= {"rows": rows, "words": words, "BOXES": 256, "WORDS": padded_words}
        # Programs for segments that begin in a stretch; without classes there is one segment.
        grid = (images, 1 if ends is None else triton.cdiv(size, 256))
        # Of 128 words, 8 warps would take 198 registers a thread.
        launches.append(Launch(nms_scan_kernel, grid, scan, {"num_warps": 4 if padded_words == 16 else 16}))
        if last < n:
            sweep = {**pairs, **chunk, "keep": keep, "removed": removed, "BLOCK": _SWEEP}
            grid = (images * triton.cdiv(n - last, _SWEEP), triton.cdiv(size, _SWEEP))
            launches.append(Launch(nms_sweep_kernel, grid, sweep, {"num_warps": 2, **exact}))
    return keep, launches


def compute_dtype(boxes: torch.Tensor, scores: torch.Tensor) -> torch.dtype:
    """What the overlaps are computed in."""
    return torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32


def suppress(
    boxes: torch.Tensor,  # [B, N, 4]
    scores: torch.Tensor,  # [B, N]
    idxs: torch.Tensor | None,  # [B, N]
    iou_threshold: float,
    **which: Any,  # counts, taking, score_threshold, as keys_launch takes them
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes by falling score (ties by the lower index, NaN last), and flags of those kept: both ``[B, N]``."""
    keys, launch = keys_launch(scores, **which)
    run(scores.device, [launch])
    by_score = torch.sort(keys, descending=True, stable=True).indices
    order, ends, by_class = by_score, None, None
    if idxs is not None:
        classes, by_class = torch.sort(idxs.gather(1, by_score), stable=True)
        ends = torch.searchsorted(classes, classes, right=True, out_int32=True)
        order = by_score.gather(1, by_class)
    left_out = keys if which else None
    keep, launches = suppress_launches(boxes, order, left_out, ends, compute_dtype(boxes, scores), iou_threshold)
    run(boxes.device, launches)
    return by_score, keep if by_class is None else torch.empty_like(keep).scatter_(1, by_class, keep)


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes ``[N, 4]`` (x1, y1, x2, y2) that greedy suppression keeps, by falling score ``[N]``."""
    by_score, keep = suppress(boxes[None], scores[None], None, iou_threshold)
    return by_score[keep.view(torch.bool)]


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The same, where a box suppresses only boxes of its own class ``idxs [N]``."""
    by_score, keep = suppress(boxes[None], scores[None], idxs[None], iou_threshold)
    return by_score[keep.view(torch.bool)]


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for n in (1000, 20000):
            boxes = torch.empty((1, n, 4), dtype=dtype, device="meta")
            scores = torch.empty((1, n), dtype=dtype, device="meta")
            order = torch.empty((1, n), dtype=torch.int64, device="meta")
            yield f"{str(dtype)[6:]}-{n}", keys_launch(scores)[1]
            for ends in (None, torch.empty((1, n), dtype=torch.int32, device="meta")):
                _, launches = suppress_launches(boxes, order, None, ends, compute_dtype(boxes, scores), 0.5)
                name = f"{str(dtype)[6:]}-{n}{'' if ends is None else '-batched'}"
                yield from ((name, launch) for launch in launches)
