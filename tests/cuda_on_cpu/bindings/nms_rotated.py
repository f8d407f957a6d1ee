"""NMS of rotated boxes by the CUDA kernels: what csrc/nms_rotated/nms_rotated_binding_cuda.cpp does around them."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases.nms import scores
from structops.testing.cases.nms_rotated import crowded

from ..emulator import Emulator, poisoned


def _two_chunks(batched: bool):
    def make(g):
        n = 1100
        found = {"boxes": crowded(g, n), "scores": scores(g, n, 512), "iou_threshold": 0.3}
        return {**found, "idxs": torch.randint(2, (n,), generator=g)} if batched else found

    return make


EXTRA = {
    "nms_rotated": (Case("two-chunks", _two_chunks(batched=False)),),
    "batched_nms_rotated": (Case("two-chunks", _two_chunks(batched=True)),),
}


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
    keys = poisoned(n, like=boxes, dtype=torch.int64 if scores.dtype == torch.float64 else torch.int32)
    emulator.launch(f"nms_keys_{_suffix(scores)}", scores, 1, n, None, None, False, 0.0, keys)
    by_score = keys.sort(stable=True).indices
    classes = by_class = None
    if idxs is not None:
        classes, by_class = idxs.long()[by_score].sort(stable=True)
    workspace = poisoned(emulator.launch("nms_rotated_workspace", n), like=boxes, dtype=torch.uint8)
    keep = poisoned(n, like=boxes, dtype=torch.uint8)
    source = n, by_score, by_class, classes, iou_threshold
    emulator.launch(f"nms_rotated_{_suffix(boxes)}", *source, boxes, workspace, keep)
    return by_score[keep == 1]


def _suffix(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
