"""NMS by the CUDA kernels: what csrc/nms/nms_binding_cuda.cpp does around the launchers, torch's sorts included."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases.nms import crowded, scores

from ..emulator import Emulator, poisoned


def _two_chunks(batched: bool):
    def make(g):
        n = 2300
        found = {"boxes": crowded(g, n), "scores": scores(g, n, 512), "iou_threshold": 0.5}
        return {**found, "idxs": torch.randint(2, (n,), generator=g)} if batched else found

    return make


EXTRA = {
    "nms": (Case("two-chunks", _two_chunks(batched=False)),),
    "batched_nms": (Case("two-chunks", _two_chunks(batched=True)),),
}


def nms(emulator: Emulator, boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    return _keep(emulator, boxes, scores, None, iou_threshold)


def batched_nms(
    emulator: Emulator, boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    return _keep(emulator, boxes, scores, idxs, iou_threshold)


def _keep(
    emulator: Emulator, boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor | None, iou_threshold: float
) -> torch.Tensor:
    n = len(boxes)
    if n == 0:
        return boxes.new_empty(0, dtype=torch.int64)
    double = torch.float64 in (boxes.dtype, scores.dtype)
    dtype, key_dtype = (torch.float64, torch.int64) if double else (torch.float32, torch.int32)
    suffix = str(dtype).removeprefix("torch.")
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).contiguous()

    keys = poisoned(n, like=boxes, dtype=key_dtype)
    emulator.launch(f"nms_keys_{suffix}", scores, n, keys)
    by_score = keys.sort(stable=True).indices
    classes = by_class = None
    if idxs is not None:
        in_order = poisoned(n, like=boxes, dtype=torch.int64)
        emulator.launch("nms_gather_classes", idxs.long().contiguous(), by_score, n, in_order)
        classes, by_class = in_order.sort(stable=True)

    workspace = poisoned(emulator.launch(f"nms_workspace_{suffix}", n), like=boxes, dtype=torch.uint8)
    kept, count = (poisoned(size, like=boxes, dtype=torch.int64) for size in (n, 1))
    source = n, by_score, by_class, classes, iou_threshold
    emulator.launch(f"nms_{suffix}", *source, boxes, workspace, kept, count)
    return kept[: int(count)]
