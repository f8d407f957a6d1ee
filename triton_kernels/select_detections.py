"""The last stage of a detector, from scores to detections.

An image has a fixed number of slots, each for one candidate (see ``_detection_kernels.py``). Torch takes softmax or
sigmoid, the exponentials and the sort; kernels do what is between them:

1. *mask*: scores that may not be chosen, before the best of each level or class are;
2. *sizes*: the logarithms of a candidate's width and height;
3. *boxes*: its box, and a key that sorts as its score does;
4. *nms*: a program for each image walks down the scores and stops at the last detection wanted. A candidate meets only
   what is kept already, of its class.

Nothing returns to the host, so empty slots are sorted too, after all others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
from structops.triton_kernels._detection_kernels import (
    PLACES,
    detection_boxes_kernel,
    detection_mask_kernel,
    detection_nms_kernel,
    detection_sizes_kernel,
)
from structops.triton_kernels._launch import Launch, double_bits, round_down, run
from structops.triton_kernels._top_k import ScoreMap, top_k

from structops.reference.select_detections import scores_of

# A fused multiply-add would round boxes otherwise than torchvision's separate operations.
_EXACT = {"num_warps": 4, "enable_fp_fusion": False}


def _begins(levels: Sequence[int]) -> dict[str, int]:
    begins = [sum(levels[:level]) for level in range(1, len(levels))]
    return dict(zip(PLACES, begins + [0] * (len(PLACES) - len(begins)), strict=True))


def _scores(
    class_scores: torch.Tensor, centerness: torch.Tensor | None, levels: Sequence[int], sigmoid: bool
) -> torch.Tensor:
    """``[B, R, C]``, fresh"""
    if class_scores.device.type == "cpu":  # under the interpreter, where torch's sigmoid depends on an element's place
        return scores_of(class_scores, centerness, list(levels), sigmoid)
    if not sigmoid:
        return class_scores.softmax(-1)
    scores = class_scores.sigmoid()
    return scores if centerness is None else scores.mul_(centerness.sigmoid()[..., None]).sqrt_()


def _maps(scores: torch.Tensor, levels: Sequence[int], by_class: bool) -> list[ScoreMap]:
    """The segments of which the best are wanted: levels, row by row, or classes."""
    images, rows, classes = scores.shape
    segments = {"images": images, "image_stride": rows * classes}
    if by_class:
        return [ScoreMap(scores, (1, 1, rows), (0, 0, classes), **segments, classes=classes, class_stride=1)]
    flat = scores.view(images, rows * classes)
    found, begin = [], 0
    for size in levels:
        end = begin + size * classes
        found.append(ScoreMap(flat[:, begin:end], (1, 1, end - begin), (0, 0, 1), **segments))
        begin = end
    return found


def launches(
    scores: torch.Tensor,  # [B, R, C]
    deltas: torch.Tensor,  # [B, R, 4 * C or 4]
    proposals: torch.Tensor,  # [B, R, 4] or [R, 4]
    sizes: torch.Tensor,  # [B, 2]
    valid: torch.Tensor | None,  # [B] int64
    chosen: torch.Tensor | None,  # [B, S] int32
    limit: int,
    by_class: bool,
    levels: Sequence[int],
    options: dict[str, Any],
) -> dict[str, Any]:
    """What is computed before the sort: tensors by name, and launches that torch's exponential comes between."""
    images, rows, classes = scores.shape
    slots = rows * classes if chosen is None else chosen.shape[1]
    shape, device, dtype = (images, slots), scores.device, scores.dtype
    boxes = torch.empty((*shape, 4), dtype=dtype, device=device)
    keys = torch.empty(shape, dtype=torch.int64 if dtype == torch.float64 else torch.int32, device=device)
    x, y, width, height = options["weights"]
    place = {"rows": rows, "classes": classes, "slots": slots, "limit": limit, **_begins(levels), "BY_CLASS": by_class}
    shared = {"scores": scores, "deltas": deltas, "valid": valid, "chosen": chosen, "images": images, **place}
    shared |= {"threshold_bits": double_bits(options["score_thresh"]), "background": options["background"]}
    shared |= {"CLASS_BOXES": deltas.shape[2] != 4, "RECIPROCALS": device.type != "cpu", "BLOCK": 256}
    grid = (triton.cdiv(images * slots, 256),)
    codes = coded = None
    if not options["distances"]:
        codes = torch.empty((*shape, 2), dtype=dtype, device=device)
        weights = {"WEIGHT_WIDTH": width, "WEIGHT_HEIGHT": height, "CLIP": options["bbox_xform_clip"]}
        coded = Launch(detection_sizes_kernel, grid, {**shared, "codes": codes, **weights}, _EXACT)
    decoded = {**shared, "proposals": proposals, "sizes": sizes, "exponentials": codes, "boxes": boxes, "keys": keys}
    decoded |= {"SHARED": proposals.dim() == 2, "WEIGHT_X": x, "WEIGHT_Y": y, "MIN_SIZE": options["min_size"]}
    return {
        "codes": codes,
        "coded": coded,
        "boxes": boxes,
        "keys": keys,
        "decoded": Launch(detection_boxes_kernel, grid, decoded, _EXACT),
        "place": place,
    }


def _nms_launch(
    scores: torch.Tensor,
    chosen: torch.Tensor | None,
    boxes: torch.Tensor,
    keys: torch.Tensor,
    order: torch.Tensor,
    place: dict[str, Any],
    nms_thresh: float,
    detections_per_img: int,
) -> tuple[tuple[torch.Tensor, ...], Launch]:
    images, device, dtype = len(boxes), boxes.device, boxes.dtype
    found = (
        torch.empty((images, detections_per_img, 4), dtype=dtype, device=device),
        torch.empty((images, detections_per_img), dtype=dtype, device=device),
        torch.empty((images, detections_per_img), dtype=torch.int64, device=device),
        torch.empty(images, dtype=torch.int64, device=device),
    )
    arguments = {"scores": scores, "chosen": chosen, "boxes": boxes, "keys": keys, "order": order, **place}
    arguments |= dict(zip(("out_boxes", "out_scores", "labels", "counts"), found, strict=True))
    arguments |= {"detections": detections_per_img, "iou_bits": double_bits(round_down(nms_thresh, dtype))}
    # All pairs of a block are in registers: more than 32 doubles spill.
    wide = dtype == torch.float64
    arguments |= {"BLOCK": 32 if wide else 64, "KEPT": 32}
    return found, Launch(detection_nms_kernel, (images,), arguments, {**_EXACT, "num_warps": 8 if wide else 16})


def _mask_launch(scores: torch.Tensor, valid: torch.Tensor | None, background: int) -> Launch:
    _, rows, classes = scores.shape
    total = scores.numel()
    arguments = {"scores": scores, "valid": valid, "total": total, "rows": rows, "classes": classes}
    arguments |= {"background": background, "BLOCK": 1024}
    return Launch(detection_mask_kernel, (triton.cdiv(total, 1024),), arguments, {"num_warps": 4})


def select_detections(
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
) -> tuple[torch.Tensor, ...]:
    """Boxes ``[B, D, 4]``, scores ``[B, D]``, labels ``[B, D]`` and counts ``[B]`` from logits ``[B, R, C]``."""
    given = (class_scores, box_deltas, proposals, centerness)
    dtype = torch.float64 if any(t is not None and t.dtype == torch.float64 for t in given) else torch.float32
    device, classes = class_scores.device, class_scores.shape[2]
    deltas, proposals, sizes = (t.to(dtype).contiguous() for t in (box_deltas, proposals, image_sizes))
    valid = None if valid is None else valid.long().contiguous()
    centerness = None if centerness is None else centerness.to(dtype).contiguous()
    scores = _scores(class_scores.to(dtype).contiguous(), centerness, levels, sigmoid)
    chosen, limit, by_class = None, 1, per_class_topk > 0
    levels = [n for n in levels if n > 0 and not by_class] or [class_scores.shape[1]]
    if topk_candidates or per_class_topk:
        limit = min(topk_candidates + per_class_topk, max(levels) * (1 if by_class else classes))
        if valid is not None or (background >= 0 and not by_class):
            run(device, [_mask_launch(scores, valid, background)])
        # Greater than the threshold in the scores' type, as torch compares them.
        above = score_thresh if dtype == torch.float64 else ctypes.c_float(score_thresh).value
        chosen = top_k(_maps(scores, levels, by_class), limit, above).flatten(1)
    options = {"weights": weights, "bbox_xform_clip": bbox_xform_clip, "min_size": min_size, "distances": distances}
    options |= {"score_thresh": score_thresh, "background": background}
    todo = launches(scores, deltas, proposals, sizes, valid, chosen, limit, by_class, levels, options)
    if not distances:
        run(device, [todo["coded"]])
        todo["codes"].exp_()
    run(device, [todo["decoded"]])
    keys, order = todo["keys"].sort(stable=True)
    found, launch = _nms_launch(
        scores, chosen, todo["boxes"], keys, order, todo["place"], nms_thresh, detections_per_img
    )
    run(device, [launch])
    return found


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""

    def meta(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    options = {"weights": [10.0, 10.0, 5.0, 5.0], "bbox_xform_clip": 4.135, "score_thresh": 0.05}
    images, rows, classes = 2, 1000, 91
    # Halves are computed with in float32.
    for name, dtype in (("bfloat16-in-float32", torch.float32), ("float64", torch.float64)):
        scores, deltas = meta(images, rows, classes, dtype=dtype), meta(images, rows, 4 * classes, dtype=dtype)
        proposals, sizes = meta(images, rows, 4, dtype=dtype), meta(images, 2, dtype=dtype)
        valid = meta(images, dtype=torch.int64)
        yield name, _mask_launch(scores, valid, 0)
        best = meta(images, 5 * 1000, dtype=torch.int32)
        kinds: dict[str, tuple] = {
            "two-stage": (deltas, proposals, valid, None, 1, False, [rows]),
            "levels": (deltas[..., :4], proposals[0], None, best, 1000, False, [800, 100, 50, 30, 20]),
            "classes": (deltas[..., :4], proposals[0], None, best, 400, True, [rows]),
        }
        for kind, (codes, priors, used, chosen, limit, by_class, levels) in kinds.items():
            mine = {**options, "distances": kind == "levels", "background": 0 if kind == "two-stage" else -1}
            mine["min_size"] = 1e-2 if kind == "two-stage" else None
            todo = launches(scores, codes, priors, sizes, used, chosen, limit, by_class, levels, mine)
            if todo["coded"]:
                yield f"{name}-{kind}", todo["coded"]
            yield f"{name}-{kind}", todo["decoded"]
            order = meta(*todo["keys"].shape, dtype=torch.int64)
            yield (
                f"{name}-{kind}",
                _nms_launch(scores, chosen, todo["boxes"], todo["keys"], order, todo["place"], 0.5, 100)[1],
            )
