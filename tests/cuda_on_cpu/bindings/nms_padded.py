"""nms_padded by the CUDA kernels of nms: what csrc/nms_padded/nms_padded_binding_cuda.cpp does around them."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases._draw import boxes
from structops.testing.cases.nms import crowded, scores

from ..emulator import Emulator, poisoned
from ._nms import suppress_rows


def _two_chunks(batched: bool):
    """Full after the first chunk in one image, never in another, with boxes left out in both chunks."""

    def make(g):
        n = 2200
        found = {
            "boxes": torch.stack([boxes(g, n, 20000, 20000, largest=100), crowded(g, n)]),
            "scores": torch.stack([scores(g, n, 512) for _ in range(2)]),
            "iou_threshold": 0.5,
            "max_output": 400,
            "valid": torch.tensor([n, n - 30]),
            "score_threshold": 0.02,
        }
        return {**found, "idxs": torch.randint(2, (2, n), generator=g)} if batched else found

    return make


EXTRA = {
    "nms_padded": (
        Case("two-chunks", _two_chunks(batched=False)),
        Case("two-chunks-classes", _two_chunks(batched=True)),
    )
}


def nms_padded(
    emulator: Emulator,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor | None,
    valid: torch.Tensor | None,
    iou_threshold: float,
    max_output: int,
    score_threshold: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    images = boxes.shape[0]
    if images == 0:
        return tuple(poisoned(*size, like=boxes, dtype=torch.int64) for size in ((0, max_output), (0,)))
    counts = mask = None
    if valid is not None and valid.dtype == torch.bool:
        mask = valid.contiguous()
    elif valid is not None:
        counts = valid.long().contiguous()
    which = counts, mask, score_threshold is not None, score_threshold or 0.0
    return suppress_rows(emulator, boxes, scores, idxs, which, iou_threshold, max_output, True)
