"""IoU of boxes in its four forms, which torchvision writes in Python as twelve to fifty operations on all pairs.

Values are torchvision's to the bit. Left to torchvision's own are scripted, traced and compiled code (a compiler fuses
those operations itself), halves, whose sides torchvision rounds, and what only it takes: integer boxes, two types at
once, rotated formats, forward-mode derivatives and the transforms of ``torch.func``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torchvision.ops import boxes as box_ops

from structops import ops
from structops.integrations._torchvision_devices import patched
from structops.reference.box_iou import FORMATS

# Captured when this module is first imported, which is before the first patch.
_torchvision_box_iou = box_ops.box_iou
_torchvision_generalized_box_iou = box_ops.generalized_box_iou
_torchvision_distance_box_iou = box_ops.distance_box_iou
_torchvision_complete_box_iou = box_ops.complete_box_iou


def _comparable(boxes1: Tensor, boxes2: Tensor) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    return (
        isinstance(boxes1, Tensor)
        and isinstance(boxes2, Tensor)
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and patched(boxes1.device)
        and boxes1.device == boxes2.device
        and boxes1.dtype == boxes2.dtype
        and boxes1.dtype in (torch.float32, torch.float64)
        and boxes1.dim() >= 2
        and boxes2.dim() >= 2
        and boxes1.shape[-1] == boxes2.shape[-1] == 4
        and all(a == b or 1 in (a, b) for a, b in zip(boxes1.shape[-3::-1], boxes2.shape[-3::-1], strict=False))
    )


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    """``torchvision.ops.box_iou``: ``[..., N, M]`` for ``[..., N, 4]`` and ``[..., M, 4]``."""
    if torch.jit.is_scripting():
        return _torchvision_box_iou(boxes1, boxes2, fmt)
    else:
        if fmt not in FORMATS or not _comparable(boxes1, boxes2):
            return _torchvision_box_iou(boxes1, boxes2, fmt)
        return ops.box_iou(boxes1, boxes2, fmt)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """``torchvision.ops.generalized_box_iou``: ``[..., N, M]`` for ``[..., N, 4]`` and ``[..., M, 4]``."""
    if torch.jit.is_scripting():
        return _torchvision_generalized_box_iou(boxes1, boxes2)
    else:
        if not _comparable(boxes1, boxes2):
            return _torchvision_generalized_box_iou(boxes1, boxes2)
        return ops.generalized_box_iou(boxes1, boxes2)


def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """``torchvision.ops.distance_box_iou``: ``[..., N, M]`` for ``[..., N, 4]`` and ``[..., M, 4]``."""
    if torch.jit.is_scripting():
        return _torchvision_distance_box_iou(boxes1, boxes2, eps)
    else:
        if not isinstance(eps, float) or not _comparable(boxes1, boxes2):
            return _torchvision_distance_box_iou(boxes1, boxes2, eps)
        return ops.distance_box_iou(boxes1, boxes2, eps)


def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """``torchvision.ops.complete_box_iou``: ``[..., N, M]`` for ``[..., N, 4]`` and ``[..., M, 4]``."""
    if torch.jit.is_scripting():
        return _torchvision_complete_box_iou(boxes1, boxes2, eps)
    else:
        if not isinstance(eps, float) or not _comparable(boxes1, boxes2):
            return _torchvision_complete_box_iou(boxes1, boxes2, eps)
        return ops.complete_box_iou(boxes1, boxes2, eps)


FUNCTIONS = (
    (_torchvision_box_iou, box_iou),
    (_torchvision_generalized_box_iou, generalized_box_iou),
    (_torchvision_distance_box_iou, distance_box_iou),
    (_torchvision_complete_box_iou, complete_box_iou),
)
