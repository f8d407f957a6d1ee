"""mask_targets by the CUDA kernel: what its binding does around the launcher."""

from __future__ import annotations

import torch

from ..emulator import Emulator, poisoned


def mask_targets(
    emulator: Emulator, gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, rows: int, columns: int
) -> torch.Tensor:
    wide = torch.float64 in (gt_masks.dtype, boxes.dtype)
    boxes = boxes.to(torch.float64 if wide else torch.float32).contiguous()
    stored = boxes.dtype if gt_masks.is_floating_point() else torch.uint8
    masks = gt_masks.to(stored).contiguous()
    targets = poisoned(len(boxes), rows, columns, like=boxes)
    name = "_".join(["mask_targets", *(str(t.dtype).removeprefix("torch.") for t in (masks, boxes))])
    emulator.launch(name, *masks.shape, len(boxes), rows, columns, masks, boxes, matched.long().contiguous(), targets)
    return targets
