"""paste_masks by its CUDA kernel: what csrc/paste_masks/paste_masks_binding_cuda.cpp does around the launcher."""

from __future__ import annotations

import torch

from structops.ops.paste_masks import _fake

from ..emulator import Emulator, poisoned

VALUES, FLAGS, PACKED = range(3)  # PasteKind


def paste_masks(
    emulator: Emulator,
    masks: torch.Tensor,
    boxes: torch.Tensor,
    height: int,
    width: int,
    threshold: float | None,
    packed: bool,
    padding: int,
) -> torch.Tensor:
    shape = _fake(masks, boxes, height, width, threshold, packed, padding)
    output = poisoned(*shape.shape, like=shape)
    if output.numel() == 0:
        return output
    masks, boxes = (t.to(torch.promote_types(t.dtype, torch.float32)).contiguous() for t in (masks, boxes))
    kind = VALUES if threshold is None else PACKED if packed else FLAGS
    parameters = *masks.shape, height, width, padding, kind, boxes.dtype == torch.float64, float(threshold or 0)
    emulator.launch(f"paste_masks_{str(masks.dtype)[6:]}", *parameters, masks, boxes, output)
    return output
