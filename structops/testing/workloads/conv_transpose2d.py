"""Transposed convolutions as segmenters and pose networks have them, each with what follows it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from structops import ops
from structops.reference import conv_transpose2d as definition
from structops.testing.cases.conv_transpose2d import torch_composed
from structops.testing.workloads import Cost, Trial, Workload, generator

SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# Of the largest output: sums of up to 4096 products, in float32, in another order.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}
CHECKED_IMAGES, CHECKED_ROWS = 1, 12


@dataclass(frozen=True)
class Shape:
    """An input ``[batch, inputs, height, width]`` and its layer.

    Attributes:
        skip: a residual of the output's size is added, after the activation.
        norm: a batch norm with its statistics folded in (scale and shift) instead of a bias.
        groups: ``inputs`` of them is a depthwise layer; the peer gets the dense weight with zeros off the diagonal,
            as a network holds it whose upsampling was initialised to be bilinear.
    """

    title: str
    batch: int
    inputs: int
    outputs: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int = 0
    norm: bool = False
    activation: str = "none"
    skip: bool = False
    groups: int = 1


MASK_HEAD = Shape("mask head", 100, 256, 256, 14, 14, 2, 2, activation="relu")
UNET = Shape("U-Net", 1, 128, 64, 256, 256, 2, 2, norm=True, activation="relu", skip=True)
UNET_DEEP = Shape("U-Net deep", 1, 1024, 512, 32, 32, 2, 2, norm=True, activation="relu", skip=True)
FCN = Shape("FCN", 1, 21, 21, 50, 84, 16, 8, padding=4)
FCN_BILINEAR = Shape("FCN bilinear", 1, 21, 21, 50, 84, 16, 8, padding=4, groups=21)
POSE = Shape("pose", 8, 256, 256, 32, 24, 4, 2, padding=1, norm=True, activation="relu")
ALL = (MASK_HEAD, UNET, UNET_DEEP, FCN, FCN_BILINEAR, POSE)


def cost(s: Shape, itemsize: int, kind: str) -> Cost:
    """Input, weight and skip read once, the output written once; two operations a product.

    A backward reads the gradient of the output twice more, and input and weight once; it writes their gradients.
    """
    out_height, out_width = (definition.extent(n, s.kernel, s.stride, s.padding, 1) for n in (s.height, s.width))
    inputs, weight = s.batch * s.inputs * s.height * s.width, s.inputs * s.outputs // s.groups * s.kernel**2
    outputs = s.batch * s.outputs * out_height * out_width
    # Every input pixel meets every tap, except those that the padding cuts off.
    flops = 2 * inputs * (s.outputs // s.groups) * s.kernel**2
    elements = inputs + weight + outputs * (2 if s.skip else 1)
    if kind == "backward":
        elements, flops = elements + 2 * (inputs + weight) + 2 * outputs, 3 * flops
    return Cost(elements * itemsize, flops)


def make(
    s: Shape, dtype: torch.dtype, layout: str, kind: str, compiled: bool, name: str, device: torch.device
) -> Trial:
    """Draws ``s``. The peer is torch in the same layout, with torch's own operations after it; eager or compiled."""
    draw = generator(name)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def tensor(*size: int, scale: float = 1.0) -> torch.Tensor:
        x = (scale * torch.randn(*size, generator=draw)).to(device, dtype)
        return x.contiguous(memory_format=form) if x.dim() == 4 else x

    x = tensor(s.batch, s.inputs, s.height, s.width)
    weight = tensor(s.inputs, s.outputs // s.groups, s.kernel, s.kernel, scale=(s.inputs // s.groups) ** -0.5)
    fused: dict[str, Any] = (
        {"scale": tensor(s.outputs), "shift": tensor(s.outputs)} if s.norm else {"bias": tensor(s.outputs)}
    )
    options: dict[str, Any] = {"stride": s.stride, "padding": s.padding}
    after: dict[str, Any] = {"activation": s.activation, "residual_after_activation": s.skip}
    with torch.no_grad():
        shape = ops.conv_transpose2d(x[:0].to("meta"), weight.to("meta"), groups=s.groups, **options).shape
    if s.skip:
        fused["residual"] = tensor(s.batch, *shape[1:])
    peer_weight = weight
    if s.groups > 1:
        peer_weight = torch.zeros(s.inputs, s.outputs, s.kernel, s.kernel, dtype=dtype, device=device)
        peer_weight[range(s.inputs), range(s.inputs)] = weight[:, 0]
        peer_weight = peer_weight.contiguous(memory_format=form)
    if kind == "backward":
        x.requires_grad_(), weight.requires_grad_()
        incoming = tensor(s.batch, *shape[1:])

    def ours() -> torch.Tensor:
        return ops.conv_transpose2d(x, weight, groups=s.groups, **fused, **options, **after)

    composed = torch.compile(torch_composed) if compiled else torch_composed

    def theirs() -> torch.Tensor:
        return composed(x, peer_weight, **fused, **options, **after)

    def step(forward) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(forward(), [x, weight], incoming)

    def forward_only(forward) -> torch.Tensor:
        with torch.no_grad():
            return forward()

    run, peer = (functools.partial(step if kind == "backward" else forward_only, f) for f in (ours, theirs))

    def check(result, peer_result) -> None:
        if kind == "forward":
            rows, images = slice(0, CHECKED_ROWS), slice(0, CHECKED_IMAGES)
            part = {n: t.double() if t.dim() == 1 else t[images, :, : shape[2]].double() for n, t in fused.items()}
            wanted = _defined(x[images].double(), weight.double(), part, s, options, after)
            found = result[images]
            error = (found.double() - wanted)[:, :, rows].abs().max().item()
            allowed = TOLERANCE[dtype] * wanted.abs().max().item()
            assert error <= allowed, f"conv_transpose2d differs from the definition by {error:.2e}"
            result, peer_result = (result,), None if peer_result is None else (peer_result,)
        for ours_, theirs_ in zip(result, peer_result or (), strict=bool(peer_result)):
            error, size = ours_.double() - theirs_.double(), theirs_.double()
            if kind == "backward":
                # In the mean: a ReLU whose input is zero but for rounding goes one way here and another there.
                distance, allowed = (error.norm() / size.norm()).item(), 1e-3
            else:
                # torch rounds after every operation, and may add up halves in another order and type.
                distance, allowed = (error.abs().max() / size.abs().max()).item(), 4 * TOLERANCE[dtype]
            assert distance <= allowed, f"conv_transpose2d differs from torch's by {distance:.2e} of the largest"

    peer_name = ("torch.compile" if compiled else "torch") + (", dense" if s.groups > 1 else "")
    costs = cost(s, dtype.itemsize, kind)
    return Trial(run, peer, peer_name, check, lambda _: costs)


def _defined(x, weight, fused, s: Shape, options, after) -> torch.Tensor:
    stride, padding = [options["stride"]] * 2, [options["padding"]] * 2
    bias, scale, shift, residual = [fused.get(name) for name in ("bias", "scale", "shift", "residual")]
    activation = definition.ACTIVATIONS.index(s.activation)
    return definition.conv_transpose2d(
        x,
        weight,
        bias,
        scale,
        shift,
        residual,
        stride,
        padding,
        [0, 0],
        s.groups,
        [1, 1],
        activation,
        0.0,
        after["residual_after_activation"],
    )


def _workload(
    s: Shape, dtype: torch.dtype, layout: str, kind: str = "forward", compiled: bool = False, **rest
) -> Workload:
    short = {"contiguous": "NCHW", "channels_last": "NHWC"}[layout]
    against = "against compiled" if compiled else ""
    words = [s.title, "step" if kind == "backward" else "", against, short, SHORT[dtype]]
    name = "-".join(word for word in words if word).lower().replace(" ", "-")
    title = f"{' '.join(word for word in words[:-1] if word)}, {SHORT[dtype]}"
    draw = functools.partial(make, s, dtype, layout, kind, compiled, f"conv_transpose2d-{name}")
    return Workload("conv_transpose2d", name, title, kind, dtype, draw, **rest)


def _all() -> tuple[Workload, ...]:
    found = []
    for s in ALL:
        for layout in ("contiguous", "channels_last"):
            found.append(_workload(s, torch.float32, layout, quick=True))
            found.append(_workload(s, torch.bfloat16, layout, quick=s is MASK_HEAD and layout == "channels_last"))
            if s is not UNET_DEEP:
                found.append(_workload(s, torch.float32, layout, compiled=True))
    found.append(_workload(MASK_HEAD, torch.bfloat16, "channels_last", compiled=True))
    for s in (MASK_HEAD, POSE):
        found.append(_workload(s, torch.float32, "channels_last", "backward"))
    return tuple(found)


WORKLOADS = _all()
