"""NMS by the CUDA kernels: what csrc/nms/nms_binding_cuda.* does around the launchers, torch's sorts included."""

from __future__ import annotations

import torch

from structops.testing.cases.nms import crowded

from ..emulator import Emulator
from ._nms import NO_FILTER, suppress_rows, two_chunks

EXTRA = two_chunks("nms", crowded, 2300, 0.5)


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
    classes = None if idxs is None else idxs[None]
    kept, counts = suppress_rows(emulator, boxes[None], scores[None], classes, NO_FILTER, iou_threshold, n, False)
    return kept[0, : int(counts[0])]
