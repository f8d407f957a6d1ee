"""encode_masks by its CUDA kernels: what csrc/encode_masks/encode_masks_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from ..emulator import Emulator, poisoned


def encode_masks(emulator: Emulator, masks: torch.Tensor, width: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    count, height, row_bytes = masks.shape
    offsets = poisoned(count + 1, like=masks, dtype=torch.int64)
    if count == 0:
        return masks.new_empty(0, dtype=torch.uint8), offsets.zero_()
    pixels = row_bytes if width is None else width
    parameters = count, height, pixels, row_bytes, width is not None
    bytes_ = masks.contiguous().view(torch.uint8)
    changes = poisoned(count * max(pixels, 1), like=masks, dtype=torch.int32)
    emulator.launch("count_changes", *parameters, bytes_, changes)
    until = changes.cumsum(0)
    runs = int(until[-1]) + count
    ends, characters = (poisoned(runs, like=masks, dtype=torch.int32) for _ in range(2))
    emulator.launch("write_ends", *parameters, bytes_, until, ends)
    emulator.launch("count_characters", *parameters, until, ends, runs, characters)
    text_until = characters.cumsum(0)
    text = poisoned(int(text_until[-1]), like=masks, dtype=torch.uint8)
    emulator.launch("write_text", *parameters, until, ends, runs, text_until, text, offsets)
    return text, offsets
