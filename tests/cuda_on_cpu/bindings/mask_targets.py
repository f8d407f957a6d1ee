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


def polygon_mask_targets(
    emulator: Emulator,
    points: torch.Tensor,
    rings: torch.Tensor,
    objects: torch.Tensor,
    boxes: torch.Tensor,
    matched: torch.Tensor,
    rows: int,
    columns: int,
) -> torch.Tensor:
    dtype = torch.float64 if torch.float64 in (points.dtype, boxes.dtype) else torch.float32
    targets = poisoned(len(boxes), rows, columns, like=boxes, dtype=dtype)
    polygons = points.double().contiguous(), rings.long().contiguous(), objects.long().contiguous()
    counts = len(points), len(rings) - 1, len(objects) - 1
    where = boxes.double().contiguous(), matched.long().contiguous(), len(boxes), rows, columns
    emulator.launch(f"polygon_mask_targets_{str(dtype)[6:]}", *polygons, *counts, *where, targets)
    return targets
