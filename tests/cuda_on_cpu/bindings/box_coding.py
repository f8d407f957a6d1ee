"""Box coding by the CUDA kernels: what csrc/box_coding/box_coding_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops.reference.box_coding import CODINGS

from ..emulator import Emulator, poisoned


class _Coder:
    def __init__(self, emulator: Emulator, decode: bool, boxes, anchors, coding, weights, clip, stride) -> None:
        self.emulator = emulator
        self.dtype = torch.promote_types(torch.promote_types(boxes.dtype, anchors.dtype), torch.float32)
        self.suffix = str(self.dtype).removeprefix("torch.")
        self.boxes, self.anchors = (t.to(self.dtype).contiguous() for t in (boxes, anchors))
        batch = len(boxes) // len(anchors) if len(anchors) else 0
        sizes = batch, len(anchors), boxes.shape[1]
        self.parameters = (*sizes, coding, *weights, clip, stride, decode)
        self.curves = [None, None]
        if CODINGS[coding] in ("deltas", "cells") and boxes.numel():
            pairs = [poisoned(*boxes.shape[:2], 2, like=self.boxes) for _ in range(2)]
            self.curves = [pairs[0] if CODINGS[coding] == "cells" else None, pairs[1]]
            self.launch("coding_arguments", self.boxes, self.anchors, *self.curves)
            curve = torch.exp if decode else torch.log
            self.curves = [None if pair is None else curve(pair) for pair in self.curves]

    def launch(self, name: str, *arguments) -> None:
        self.emulator.launch(f"{name}_{self.suffix}", *self.parameters, *arguments)

    def forward(self) -> torch.Tensor:
        out = poisoned(*self.boxes.shape, like=self.boxes)
        if out.numel():
            self.launch("code_boxes", self.boxes, self.anchors, *self.curves, out)
        return out

    def backward(self, grad: torch.Tensor) -> list[torch.Tensor]:
        grads = [poisoned(*t.shape, like=t) for t in (self.boxes, self.anchors)]
        self.launch("code_boxes_backward", grad.contiguous(), self.boxes, self.anchors, *self.curves, *grads)
        return grads


def decode_boxes(
    emulator: Emulator, deltas: torch.Tensor, anchors: torch.Tensor, coding: int, weights: list[float], clip, stride
) -> torch.Tensor:
    return _Coder(emulator, True, deltas, anchors, coding, weights, clip, stride).forward()


def decode_boxes_backward(
    emulator: Emulator, grad, deltas: torch.Tensor, anchors: torch.Tensor, coding: int, weights, clip, stride
) -> tuple[torch.Tensor, torch.Tensor]:
    of_deltas, of_anchors = _Coder(emulator, True, deltas, anchors, coding, weights, clip, stride).backward(grad)
    return of_deltas.to(deltas.dtype), of_anchors.to(anchors.dtype)


def encode_boxes(
    emulator: Emulator, boxes: torch.Tensor, anchors: torch.Tensor, coding: int, weights: list[float], stride: float
) -> torch.Tensor:
    return _Coder(emulator, False, boxes, anchors, coding, weights, 0.0, stride).forward()


def encode_boxes_backward(
    emulator: Emulator, grad, boxes: torch.Tensor, anchors: torch.Tensor, coding: int, weights: list[float], stride
) -> tuple[torch.Tensor, torch.Tensor]:
    of_boxes, of_anchors = _Coder(emulator, False, boxes, anchors, coding, weights, 0.0, stride).backward(grad)
    return of_boxes.to(boxes.dtype), of_anchors.to(anchors.dtype)
