"""The last stage of detectors by the CUDA kernels: what its binding_cuda.cpp does around the launchers, torch's ops and
sorts included."""

from __future__ import annotations

import math

import torch

from structops.reference.select_detections import scores_of
from structops.testing import Case
from structops.testing.cases.select_detections import RETINANET, dense_head, head

from ..emulator import Emulator, poisoned

LEVELS = 8

EXTRA = {
    "select_detections": (
        # more candidates than a block looks at together, and more detections than it meets together
        Case(
            "many-candidates", lambda g: head(g, 1, 200, 4, detections_per_img=400, score_thresh=0.01, nms_thresh=0.9)
        ),
        Case("full-after-one-round", lambda g: head(g, 2, 150, 4, detections_per_img=3, nms_thresh=0.9)),
        Case(
            "levels-of-softmax",
            lambda g: dense_head(
                g, 2, 40, 3, **{**RETINANET, "activation": "softmax", "background": 1, "valid": torch.tensor([11, 40])}
            ),
        ),
    )
}


def select_detections(
    emulator: Emulator,
    class_scores: torch.Tensor,
    box_deltas: torch.Tensor,
    proposals: torch.Tensor,
    image_sizes: torch.Tensor,
    valid: torch.Tensor | None,
    centerness: torch.Tensor | None,
    levels: list[int],
    sigmoid: bool,
    background: int,
    distances: bool,
    weights: list[float],
    bbox_xform_clip: float,
    score_thresh: float,
    nms_thresh: float,
    min_size: float | None,
    topk_candidates: int,
    per_class_topk: int,
    detections_per_img: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    given = [t for t in (class_scores, box_deltas, proposals, centerness) if t is not None]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32
    suffix = str(dtype).removeprefix("torch.")
    images, rows, classes = class_scores.shape

    def dense(tensor: torch.Tensor | None, to: torch.dtype) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(to).contiguous()

    def empty(*size: int, of: torch.dtype = dtype) -> torch.Tensor:
        return poisoned(*size, like=class_scores, dtype=of)

    deltas, boxes, sizes = (dense(t, dtype) for t in (box_deltas, proposals, image_sizes))
    counts = dense(valid, torch.int64)
    scores = scores_of(dense(class_scores, dtype), dense(centerness, dtype), levels, sigmoid)
    parameters = (images, rows, classes, background, box_deltas.shape[2] != 4, proposals.dim() == 2, distances)
    # On a CPU torch divides by weights as such; of powers of two, multiplying by reciprocals is the same.
    reciprocals = all(math.frexp(w)[0] == 0.5 for w in weights)
    parameters += (
        *weights,
        reciprocals,
        bbox_xform_clip,
        score_thresh,
        nms_thresh,
        math.nan if min_size is None else min_size,
    )
    parameters += (detections_per_img,)
    slots = (rows * classes, None, 1, False, *[0] * LEVELS)
    if topk_candidates or per_class_topk:
        by_class = per_class_topk > 0
        if counts is not None or (background >= 0 and not by_class):
            emulator.launch(f"detection_mask_{suffix}", *parameters, counts, scores)
        best = _best(emulator, scores, levels, per_class_topk or topk_candidates, by_class, score_thresh)
        slots = (*best, *_begins(levels if not by_class else []))
    head = (*parameters, *slots, scores, deltas, boxes, sizes, counts)

    count = slots[0]
    exponentials = None
    if not distances:
        codes = empty(images, count, 2)
        emulator.launch(f"detection_sizes_{suffix}", *head, codes)
        exponentials = codes.exp()
    key_type = torch.int32 if dtype == torch.float32 else torch.int64
    all_boxes, keys = empty(images, count, 4), empty(images, count, of=key_type)
    emulator.launch(f"detection_boxes_{suffix}", *head, exponentials, all_boxes, keys)
    in_order, order = keys.sort(stable=True)
    found = (
        empty(images, detections_per_img, 4),
        empty(images, detections_per_img),
        empty(images, detections_per_img, of=torch.int64),
        empty(images, of=torch.int64),
    )
    emulator.launch(f"detection_nms_{suffix}", *head, all_boxes, in_order, order, *found)
    return found


def _begins(levels: list[int]) -> list[int]:
    begins = [sum(levels[:i]) for i in range(len(levels))]
    return begins + [0] * (LEVELS - len(begins))


def _best(
    emulator: Emulator, scores: torch.Tensor, levels: list[int], limit: int, by_class: bool, score_thresh: float
) -> tuple[int, torch.Tensor, int, bool]:
    """Slots: how many an image has, which scores they hold, how many to a level or class, and which of the two."""
    images, rows, classes = scores.shape
    suffix = str(scores.dtype).removeprefix("torch.")
    levels = levels if levels and not by_class else [rows]
    each = 1 if by_class else classes
    limit = min(limit, max(levels) * each)
    above = torch.tensor(score_thresh, dtype=scores.dtype).item()
    top = (len(levels), images, classes if by_class else 1, limit, above)
    stride = classes if by_class else 1
    maps = torch.tensor([[1, 1, n * each, 0, 0, stride, rows * classes, 1] for n in levels])
    begins = _begins(levels)
    # An empty tensor has no memory to point to.
    pointers = [scores.view(-1)[b * classes :] if n and images else None for b, n in zip(begins, levels, strict=False)]
    pointers += [None] * (LEVELS - len(pointers))
    workspace = poisoned(emulator.launch(f"top_k_workspace_{suffix}", *top, maps), like=scores, dtype=torch.uint8)
    count = len(levels) * top[2] * limit
    chosen = poisoned(images, count, like=scores, dtype=torch.int32)
    emulator.launch(f"top_k_{suffix}", *top, *pointers, maps, workspace, chosen)
    return count, chosen, limit, by_class
