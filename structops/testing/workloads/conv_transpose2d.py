"""Transposed convolutions as segmenters and pose networks have them, each with what follows it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from structops import ops
from structops.reference import conv_transpose2d as definition
from structops.testing.cases.conv_transpose2d import torch_composed
from structops.testing.workloads import SHORT, Cost, Trial, Workload, check_close, full_float32, generator

# Of the largest result: sums of thousands of products, in float32, in another order.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}
# torch rounds after every operation, and may add up halves in another order and type.
PEER_TOLERANCE = {dtype: 4 * tolerance for dtype, tolerance in TOLERANCE.items()}
# What is compared with the definition, in float64: an image, and of the weight's gradient some output channels.
CHECKED_IMAGES, CHECKED_CHANNELS = slice(0, 1), slice(0, 8)


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
        incoming = tensor(s.batch, *shape[1:])
        vectors = {name: t for name, t in fused.items() if name != "residual"}
        activated = torch_composed(x, peer_weight, **vectors, **options).abs()
        # An input of the ReLU that is zero but for rounding passes a gradient in one order of sums and none in another.
        incoming[activated <= PEER_TOLERANCE[dtype] * activated.max()] = 0
        x.requires_grad_(), weight.requires_grad_()

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

    once = step if kind == "backward" else forward_only

    def peer() -> Any:
        with full_float32():
            return once(theirs)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        part = {name: t[CHECKED_IMAGES] if t.dim() == 4 else t for name, t in fused.items()}
        wanted = _defined(s, x[CHECKED_IMAGES], weight, part)
        check_close("the definition", result[CHECKED_IMAGES], wanted, TOLERANCE[dtype])
        if peer_result is not None:
            check_close("torch", result, peer_result, PEER_TOLERANCE[dtype])

    def check_backward(result: tuple, peer_result: tuple | None) -> None:
        everything = slice(None)
        wanted, _ = _defined_gradients(s, x, weight, vectors, incoming, CHECKED_IMAGES, everything)
        check_close("the definition's gradient of the input", result[0][CHECKED_IMAGES], wanted, TOLERANCE[dtype])
        _, wanted = _defined_gradients(s, x, weight, vectors, incoming, everything, CHECKED_CHANNELS)
        check_close("the definition's gradient of the weight", result[1][:, CHECKED_CHANNELS], wanted, TOLERANCE[dtype])
        for name, found, theirs_ in zip(("input", "weight"), result, peer_result or (), strict=peer_result is not None):
            check_close(f"torch's gradient of the {name}", found, theirs_, PEER_TOLERANCE[dtype])

    peer_name = ("torch.compile" if compiled else "torch") + (", dense" if s.groups > 1 else "")
    costs = cost(s, dtype.itemsize, kind)
    checks = check_backward if kind == "backward" else check
    return Trial(functools.partial(once, ours), peer, peer_name, checks, lambda _: costs)


def _defined(s: Shape, x, weight, fused) -> torch.Tensor:
    """The output by the definition, in float64."""
    wide = {name: t.double() for name, t in fused.items()}
    return definition.conv_transpose2d(
        x.double(),
        weight.double(),
        wide.get("bias"),
        wide.get("scale"),
        wide.get("shift"),
        wide.get("residual"),
        [s.stride] * 2,
        [s.padding] * 2,
        [0, 0],
        s.groups,
        [1, 1],
        definition.ACTIVATIONS.index(s.activation),
        0.0,
        s.skip,
    )


def _defined_gradients(s: Shape, x, weight, vectors, incoming, images: slice, channels: slice) -> tuple:
    """The gradients of ``x[images]`` and ``weight[:, channels]`` by what some images and channels contribute."""
    x, weight = x[images].detach().requires_grad_(), weight[:, channels].detach().requires_grad_()
    vectors = {name: t[channels] for name, t in vectors.items()}
    out = _defined(s, x, weight, vectors)
    return torch.autograd.grad(out, [x, weight], incoming[images, channels].double())


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
