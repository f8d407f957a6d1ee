"""Transposed convolutions, with what follows them. The peer is cuDNN, whose machine code is not at hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from structops.bench.gpu_cost import conv
from structops.bench.gpu_cost.conv_geometry import INPUT, OUTPUT, Layer
from structops.bench.gpu_cost.scenes import FULL, HALF, Draw, Scene
from structops.testing.workloads import Cost
from structops.testing.workloads.conv_transpose2d import (
    FCN,
    FCN_BILINEAR,
    MASK_HEAD,
    POSE,
    SHORT,
    UNET,
    UNET_DEEP,
    Shape,
    cost,
)

TITLE = "Transposed convolutions"


def layer_of(s: Shape, dtype: torch.dtype, channels_last: bool) -> Layer:
    return Layer(
        s.batch,
        s.groups,
        s.inputs // s.groups,
        s.outputs // s.groups,
        s.height,
        s.width,
        s.kernel,
        s.stride,
        s.padding,
        dtype,
        channels_last,
    )


def _title(s: Shape, what: str, dtype: torch.dtype, channels_last: bool) -> str:
    words = f"{s.title} {what}".strip()
    return f"{words}, {SHORT[dtype]} {'NHWC' if channels_last else 'NCHW'}"


def _forward(s: Shape, dtype: torch.dtype, channels_last: bool) -> Scene:
    layer = layer_of(s, dtype, channels_last)
    depthwise = s.groups == s.inputs
    return Scene(
        "conv_transpose2d",
        _title(s, "", dtype, channels_last),
        layer.elements(OUTPUT),
        lambda: cost(s, dtype.itemsize, "forward"),
        lambda: conv.depthwise(layer) if depthwise else conv.convolution(layer, s.skip),
        extra=0 if depthwise else conv.packed_bytes(layer, INPUT),
    )


def _grad_input(s: Shape, dtype: torch.dtype, channels_last: bool) -> Scene:
    layer = replace(layer_of(s, dtype, channels_last), forward=False)
    return Scene(
        "conv_transpose2d",
        _title(s, "grad_input", dtype, channels_last),
        layer.elements(INPUT),
        lambda: _gradient_cost(layer),
        lambda: conv.convolution(layer),
        extra=conv.packed_bytes(layer, OUTPUT),
    )


def _grad_weight(s: Shape, dtype: torch.dtype, channels_last: bool) -> Scene:
    layer = layer_of(s, dtype, channels_last)
    return Scene(
        "conv_transpose2d",
        _title(s, "grad_weight", dtype, channels_last),
        layer.weights,
        lambda: _gradient_cost(layer),
        lambda: conv.grad_weight(layer),
        extra=conv.packed_bytes(layer, INPUT, OUTPUT) + conv.partial_bytes(layer),
    )


def _gradient_cost(layer: Layer) -> Cost:
    """Of either: input, output and weight, of which one is written."""
    elements = layer.elements(INPUT) + layer.elements(OUTPUT) + layer.weights
    return Cost(elements * layer.dtype.itemsize, layer.flops)


def _scenes() -> list[Scene]:
    return [
        _forward(MASK_HEAD, HALF, True),
        _forward(MASK_HEAD, HALF, False),
        _forward(MASK_HEAD, FULL, True),
        _forward(MASK_HEAD, FULL, False),
        _forward(UNET, HALF, True),
        _forward(UNET, HALF, False),
        _forward(UNET, FULL, True),
        _forward(UNET_DEEP, HALF, True),
        _forward(FCN, HALF, True),
        _forward(FCN, HALF, False),
        _forward(FCN, FULL, False),
        _forward(FCN_BILINEAR, HALF, True),
        _forward(FCN_BILINEAR, HALF, False),
        _forward(FCN_BILINEAR, FULL, False),
        _forward(POSE, HALF, True),
        _forward(POSE, HALF, False),
        _forward(POSE, FULL, True),
        _grad_input(MASK_HEAD, HALF, True),
        _grad_weight(MASK_HEAD, HALF, True),
        _grad_input(POSE, HALF, True),
        _grad_weight(POSE, HALF, True),
    ]


SCENES: dict[str, Draw] = {"conv_transpose2d": _scenes}
