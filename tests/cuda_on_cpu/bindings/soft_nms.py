"""Soft NMS by the CUDA kernels: what csrc/soft_nms/soft_nms_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch
from structops.triton_kernels._launch import round_down
from structops.triton_kernels.nms import compute_dtype

from ..emulator import Emulator, poisoned
from ._nms import sort_by_class


def soft_nms(
    emulator: Emulator,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor | None,
    iou_threshold: float,
    method: int,
    sigma: float,
    score_threshold: float,
    max_output: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n, dtype = len(boxes), compute_dtype(boxes, scores)
    suffix = str(dtype).removeprefix("torch.")
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).contiguous()
    scale = max(-1 / sigma, -torch.finfo(dtype).max)
    rule = method, round_down(iou_threshold, dtype), scale, round_down(score_threshold, dtype)
    classes = order = None
    if idxs is not None:
        classes, order = idxs.long().contiguous().sort(stable=True)

    workspace = poisoned(emulator.launch(f"soft_nms_workspace_{suffix}", n), like=boxes, dtype=torch.uint8)
    result = poisoned(n, like=boxes)
    emulator.launch(f"soft_nms_decay_{suffix}", n, boxes, scores, order, classes, *rule, max_output, workspace, result)
    keys, best, _, _ = sort_by_class(emulator, result[None], None, (None, None, True, 0.0))
    indices, count = (poisoned(*size, like=boxes, dtype=torch.int64) for size in ((max_output,), ()))
    decayed = poisoned(max_output, like=boxes)
    emulator.launch(f"soft_nms_finish_{suffix}", keys, best, result, n, max_output, indices, decayed, count)
    return indices, decayed, count
