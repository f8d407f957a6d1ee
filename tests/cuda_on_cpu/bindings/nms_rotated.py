"""NMS of rotated boxes by the CUDA kernels: what csrc/nms_rotated/nms_rotated_binding_cuda.cpp does around them."""

from __future__ import annotations

import torch

from structops.testing.cases.nms_rotated import crowded

from ..emulator import Emulator, poisoned
from ._nms import NO_FILTER, sort_by_class, two_chunks

EXTRA = two_chunks("nms_rotated", crowded, 1100, 0.3)


def nms_rotated(emulator: Emulator, boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    return _keep(emulator, boxes, scores, None, iou_threshold)


def batched_nms_rotated(
    emulator: Emulator, boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    return _keep(emulator, boxes, scores, idxs, iou_threshold)


def _keep(
    emulator: Emulator, boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor | None, iou_threshold: float
) -> torch.Tensor:
    n = len(boxes)
    if n == 0:
        return boxes.new_empty(0, dtype=torch.int64)
    boxes, scores = (t.to(torch.promote_types(t.dtype, torch.float32)).contiguous() for t in (boxes, scores))
    rows = None if idxs is None else idxs[None]
    _, by_score, by_class, classes = sort_by_class(emulator, scores[None], rows, NO_FILTER)
    workspace = poisoned(emulator.launch("nms_rotated_workspace", n), like=boxes, dtype=torch.uint8)
    keep = poisoned(n, like=boxes, dtype=torch.uint8)
    source = n, by_score, by_class, classes, iou_threshold
    emulator.launch(f"nms_rotated_{str(boxes.dtype).removeprefix('torch.')}", *source, boxes, workspace, keep)
    return by_score[0, keep == 1]
