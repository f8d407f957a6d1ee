"""IoU of boxes by the CUDA kernels: what csrc/box_iou/box_iou_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops.reference.box_iou import KINDS
from structops.testing import Case
from structops.testing.cases._draw import boxes

from ..emulator import Emulator, poisoned


def _tiles(n: int, m: int):
    return lambda g: {"boxes1": boxes(g, n, 90, 70), "boxes2": boxes(g, m, 90, 70)}


EXTRA = {
    # Of the forward: more than one tile along either axis, and few columns; of the backward: more tiles than lanes.
    "box_iou": (Case("two-tiles", _tiles(17, 260)), Case("many-tiles", _tiles(2120, 3)), Case("wide", _tiles(1, 4200))),
}


class _Sets:
    def __init__(self, emulator: Emulator, boxes1: torch.Tensor, boxes2: torch.Tensor, kind: int) -> None:
        self.dtype = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
        self.suffix = str(self.dtype).removeprefix("torch.")
        self.boxes = [b.to(self.dtype).contiguous() for b in (boxes1, boxes2)]
        self.angles: list[torch.Tensor | None] = [None, None]
        if KINDS[kind] == "complete":
            for i, b in enumerate(self.boxes):
                ratios = poisoned(b.numel() // 4, like=b)
                if ratios.numel():
                    emulator.launch(f"box_ratios_{self.suffix}", b, ratios.numel(), ratios)
                self.angles[i] = ratios.atan()
        self.pointers = (*self.boxes, *self.angles)


def _parameters(boxes1, boxes2, kind, fmt, elementwise, eps):
    sizes = (1, len(boxes1), 1) if elementwise else (*boxes1.shape[:2], boxes2.shape[1])
    return *sizes, kind, fmt, eps


def box_iou(
    emulator: Emulator,
    boxes1: torch.Tensor,
    boxes2: torch.Tensor,
    kind: int,
    fmt: int,
    elementwise: bool,
    eps: float,
) -> torch.Tensor:
    sets = _Sets(emulator, boxes1, boxes2, kind)
    shape = (len(boxes1),) if elementwise else (*boxes1.shape[:2], boxes2.shape[1])
    output = poisoned(*shape, like=sets.boxes[0])
    if output.numel():
        name = f"box_iou{'_rows' if elementwise else ''}_{sets.suffix}"
        parameters = _parameters(boxes1, boxes2, kind, fmt, elementwise, eps)
        emulator.launch(name, *parameters, *sets.pointers, output)
    return output


def box_iou_backward(
    emulator: Emulator,
    grad: torch.Tensor,
    boxes1: torch.Tensor,
    boxes2: torch.Tensor,
    kind: int,
    fmt: int,
    elementwise: bool,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    sets, grad = _Sets(emulator, boxes1, boxes2, kind), grad.contiguous()
    parameters = _parameters(boxes1, boxes2, kind, fmt, elementwise, eps)
    grads = [poisoned(*b.shape, like=b) for b in sets.boxes]
    if elementwise:
        emulator.launch(f"box_iou_rows_backward_{sets.suffix}", *parameters, grad, *sets.pointers, *grads)
    else:
        size = emulator.launch(f"box_iou_backward_workspace_{sets.suffix}", *parameters)
        workspace = poisoned(size, like=grad, dtype=torch.uint8)
        emulator.launch(f"box_iou_backward_{sets.suffix}", *parameters, grad, *sets.pointers, *grads, workspace)
    return grads[0].to(boxes1.dtype), grads[1].to(boxes2.dtype)
