"""What csrc/nms/nms_binding_cuda.h does around the launchers, torch's sorts included: suppression, image by image."""

from __future__ import annotations

import torch

from ..emulator import Emulator, poisoned

Filter = tuple[torch.Tensor | None, torch.Tensor | None, bool, float]  # structops::NmsFilter


def suppress_rows(
    emulator: Emulator,
    boxes: torch.Tensor,  # [B, N, 4]
    scores: torch.Tensor,  # [B, N]
    idxs: torch.Tensor | None,  # [B, N]
    which: Filter,
    iou_threshold: float,
    max_output: int,
    padded: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices ``[B, max_output]`` and counts ``[B]``."""
    images, n = scores.shape
    double = torch.float64 in (boxes.dtype, scores.dtype)
    dtype, key_dtype = (torch.float64, torch.int64) if double else (torch.float32, torch.int32)
    suffix = str(dtype).removeprefix("torch.")
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).contiguous()

    keys = poisoned(images, n, like=boxes, dtype=key_dtype)
    emulator.launch(f"nms_keys_{suffix}", scores, images, n, *which, keys)
    keys, by_score = keys.sort(stable=True)
    classes = by_class = None
    if idxs is not None:
        in_order = poisoned(images, n, like=boxes, dtype=torch.int64)
        emulator.launch("nms_gather_classes", idxs.long().contiguous(), by_score, images, n, in_order)
        classes, by_class = in_order.sort(stable=True)

    workspace = poisoned(emulator.launch(f"nms_workspace_{suffix}", images, n), like=boxes, dtype=torch.uint8)
    indices = poisoned(images, max_output, like=boxes, dtype=torch.int64)
    counts = poisoned(images, like=boxes, dtype=torch.int64)
    source = images, n, by_score, by_class, classes, keys, iou_threshold
    emulator.launch(f"nms_{suffix}", *source, boxes, workspace, max_output, padded, indices, counts)
    return indices, counts
