"""IoU of rotated boxes by the CUDA kernels: what csrc/box_iou_rotated/box_iou_rotated_binding_cuda.cpp does."""

from __future__ import annotations

import torch

from ..emulator import Emulator, poisoned

WORKSPACE = 80  # RotatedBoxes::kBytes


def box_iou_rotated(emulator: Emulator, boxes1: torch.Tensor, boxes2: torch.Tensor, elementwise: bool) -> torch.Tensor:
    n, m = len(boxes1), len(boxes2)
    dtype = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    suffix = str(dtype).removeprefix("torch.")
    out = poisoned(*((n,) if elementwise else (n, m)), like=boxes1, dtype=dtype)
    if out.numel() == 0:
        return out
    a, b = (boxes.to(dtype).contiguous() for boxes in (boxes1, boxes2))
    if elementwise:
        emulator.launch(f"box_iou_rotated_elementwise_{suffix}", a, b, n, out)
        return out
    workspaces = [poisoned(len(boxes) * WORKSPACE, like=boxes, dtype=torch.uint8) for boxes in (a, b)]
    for boxes, workspace in zip((a, b), workspaces, strict=True):
        emulator.launch(f"rotated_boxes_{suffix}", boxes, len(boxes), workspace)
    emulator.launch(f"box_iou_rotated_{suffix}", workspaces[0], n, workspaces[1], m, out)
    return out
