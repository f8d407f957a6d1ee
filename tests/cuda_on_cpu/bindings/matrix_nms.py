"""Matrix NMS by the CUDA kernels: what csrc/matrix_nms/matrix_nms_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch
from structops.triton_kernels.nms import compute_dtype

from ..emulator import Emulator, poisoned
from ._nms import NO_FILTER, sort_by_class


def matrix_nms(
    emulator: Emulator,
    scores: torch.Tensor,
    boxes: torch.Tensor | None,
    ious: torch.Tensor | None,
    idxs: torch.Tensor | None,
    kernel: int,
    sigma: float,
) -> torch.Tensor:
    n, dtype = len(scores), compute_dtype(boxes if ious is None else ious, scores)
    suffix = str(dtype).removeprefix("torch.")
    scores = scores.to(dtype).contiguous()
    boxes, ious = (None if t is None else t.to(dtype).contiguous() for t in (boxes, ious))
    lowered = poisoned(n, like=scores)
    if n == 0:
        return lowered
    rows = None if idxs is None else idxs[None]
    _, by_score, by_class, classes = sort_by_class(emulator, scores[None], rows, NO_FILTER)
    workspace = poisoned(emulator.launch(f"matrix_nms_workspace_{suffix}", n), like=scores, dtype=torch.uint8)
    source = n, scores, boxes, ious, by_score, by_class, classes
    rule = kernel, min(sigma, torch.finfo(dtype).max)
    emulator.launch(f"matrix_nms_{suffix}", *source, *rule, workspace, lowered)
    return lowered
