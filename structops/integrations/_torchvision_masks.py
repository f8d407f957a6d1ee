"""Masks pasted into their image, which torchvision does one detection after another, each through an image of its own.

Values are torchvision's to the bit on CPUs that have fused multiply-adds. Left to torchvision's own are scripted,
traced and compiled code, gradients, halves, and what only it takes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection import roi_heads

from structops import ops
from structops.integrations._torchvision_devices import patched

# Captured when this module is first imported, which is before the first patch.
_torchvision_paste_masks_in_image = roi_heads.paste_masks_in_image


def _takes(masks: Tensor, boxes: Tensor, img_shape: tuple[int, int], padding: int) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    wide = (torch.float32, torch.float64)
    return (
        isinstance(masks, Tensor)
        and isinstance(boxes, Tensor)
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and patched(masks.device)
        and masks.device == boxes.device
        and masks.dtype in wide
        and boxes.dtype in wide
        and not (torch.is_grad_enabled() and masks.requires_grad)
        and masks.dim() == 4
        and masks.shape[1] == 1
        and min(masks.shape[2:]) > 0
        and boxes.shape == (len(masks), 4)
        and len(img_shape) == 2
        and all(isinstance(size, int) and size >= 0 for size in (*img_shape, padding))
    )


def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: tuple[int, int], padding: int = 1) -> Tensor:
    """``[K, 1, height, width]`` for masks ``[K, 1, M, M]`` and boxes ``[K, 4]``."""
    if torch.jit.is_scripting():
        return _torchvision_paste_masks_in_image(masks, boxes, img_shape, padding)
    else:
        if not _takes(masks, boxes, img_shape, padding):
            return _torchvision_paste_masks_in_image(masks, boxes, img_shape, padding)
        return ops.paste_masks(masks, boxes, img_shape, None, padding=padding)


FUNCTIONS = ((_torchvision_paste_masks_in_image, paste_masks_in_image),)
