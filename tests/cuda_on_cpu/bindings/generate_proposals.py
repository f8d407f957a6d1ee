"""generate_proposals by the CUDA kernels: what its binding_cuda.cpp does around the launchers, torch's ops included."""

from __future__ import annotations

import math

import torch

from structops.testing import Case
from structops.testing.cases.generate_proposals import head

from ..emulator import Emulator, poisoned
from ._nms import suppress_rows

MAPS, MAX_TOP_K = 8, 2048


def _parts(g):
    """A level in two parts, so that a second round merges them, and two small ones."""
    return head(g, 1, [(66, 85), (4, 5), (1, 1)], cell=3, pre_nms_top_n=700, post_nms_top_n=40)


def _sorted_whole(g):
    """More than the kernels of the best k hold."""
    return head(g, 1, [(40, 25), (3, 3)], cell=3, pre_nms_top_n=2060, post_nms_top_n=30)


EXTRA = {"generate_proposals": (Case("level-in-parts", _parts), Case("best-beyond-shared-memory", _sorted_whole))}


def _pointers(maps: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """Emulated launchers read no further than an element's memory: empty tensors are null, as they are for CUDA."""
    return [m if m.numel() else None for m in maps] + [None] * (MAPS - len(maps))


def _choose(emulator: Emulator, objectness: list[torch.Tensor], best: int, slots: list[int]) -> torch.Tensor:
    """``[images, levels, best]`` int32."""
    first, suffix = objectness[0], str(objectness[0].dtype).removeprefix("torch.")
    images = first.shape[0]
    geometry = []
    for map_ in objectness:
        (_, cell, height, width), stride = map_.shape, map_.stride()
        geometry.append([height, width, cell, stride[2], stride[3], stride[1], stride[0], 0])
    parameters = len(objectness), images, 1, best, math.nan
    pointers, geometry = _pointers(objectness), torch.tensor(geometry)
    chosen = poisoned(images, len(objectness), best, like=first, dtype=torch.int32)
    if best <= MAX_TOP_K:
        size = emulator.launch(f"top_k_workspace_{suffix}", *parameters, geometry)
        workspace = poisoned(size, like=first, dtype=torch.uint8)
        emulator.launch(f"top_k_{suffix}", *parameters, *pointers, geometry, workspace, chosen)
        return chosen
    for level, map_ in enumerate(objectness):
        key = torch.int64 if first.dtype == torch.float64 else torch.int32
        keys = poisoned(images, map_[0].numel(), like=first, dtype=key)
        emulator.launch(f"top_k_keys_{suffix}", *parameters, *pointers, geometry, level, keys)
        chosen[:, level, : slots[level]] = keys.sort(stable=True).indices[:, : slots[level]]
    return chosen


def generate_proposals(
    emulator: Emulator,
    objectness: list[torch.Tensor],
    deltas: list[torch.Tensor],
    image_sizes: torch.Tensor,
    anchors: list[torch.Tensor],
    strides: list[int],
    pre_nms_top_n: int,
    post_nms_top_n: int,
    nms_thresh: float,
    min_size: float,
    score_thresh: float,
    weights: list[float],
    bbox_xform_clip: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first = objectness[0]
    images, compute = first.shape[0], torch.promote_types(first.dtype, torch.float32)
    suffix, wide = (str(t).removeprefix("torch.") for t in (first.dtype, compute))
    proposals = poisoned(images, post_nms_top_n, 4, like=first, dtype=compute)
    proposal_scores = poisoned(images, post_nms_top_n, like=first, dtype=compute)
    if images == 0:
        return proposals, proposal_scores, poisoned(0, like=first, dtype=torch.int64)

    anchors = [t.to(compute).contiguous() for t in anchors]
    sizes = image_sizes.to(compute).contiguous()
    slots = [min(pre_nms_top_n, o[0].numel()) for o in objectness]
    count, best = sum(slots), max(slots)
    numbers = []
    for level, (score, delta) in enumerate(zip(objectness, deltas, strict=True)):
        pair = strides[2 * level : 2 * level + 2] or [0, 0]
        numbers.append([*score.shape[1:], *score.stride(), *delta.stride(), *pair, bool(strides), slots[level]])
    numbers = torch.tensor(numbers)
    chosen = _choose(emulator, objectness, best, slots)

    parameters = (images, len(objectness), count, *weights, bbox_xform_clip, min_size, score_thresh)
    maps = (*_pointers(objectness), *_pointers(deltas), *_pointers(anchors))
    shared = (*parameters, *maps, numbers, chosen, best)
    scores = poisoned(images, count, like=first, dtype=compute)
    sizes_of = poisoned(images, count if anchors else 0, 2, like=first, dtype=compute)
    emulator.launch(f"proposal_codes_{suffix}", *shared, scores, sizes_of)
    scores.sigmoid_()
    sizes_of.exp_()

    boxes = poisoned(images, count, 4, like=first, dtype=compute)
    level_of = poisoned(images, count, like=first, dtype=torch.int64)
    takes = torch.zeros(images, count, dtype=torch.bool)
    emulator.launch(f"proposal_boxes_{suffix}", *shared, scores, sizes_of, sizes, boxes, level_of, takes)
    which = None, takes, False, 0.0
    kept, counts = suppress_rows(emulator, boxes, scores, level_of, which, nms_thresh, post_nms_top_n, True)
    gathered = images, count, post_nms_top_n, kept, boxes, scores, proposals, proposal_scores
    emulator.launch(f"gather_proposals_{wide}", *gathered)
    return proposals, proposal_scores, counts
