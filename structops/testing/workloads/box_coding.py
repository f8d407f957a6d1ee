"""Box coding as detectors do it: proposals of a pyramid, class-specific boxes of a head, targets of a loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from structops import ops
from structops.ops.box_coding import LOG_SCALE_CLIP
from structops.reference import box_coding as definition
from structops.testing.workloads import Cost, Trial, Workload, check_close, generator
from structops.testing.workloads.nms import spread_boxes

TOLERANCE = 1e-5
# Codes are differences of coordinates up to 1333 in units of a side, which may be 11: rounding is that much larger.
ENCODING_TOLERANCE = 1e-4
SSD = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class Shape:
    """One call: ``classes`` boxes for each anchor."""

    anchors: int
    classes: int = 1
    coding: str = "deltas"


def cost(shape: Shape, backward: bool) -> Cost:
    """Codes and anchors read once, boxes written once; the backward reads a gradient and writes two instead. Some 20
    operations a box, an exponential counted as one; twice that for derivatives."""
    boxes = shape.anchors * shape.classes
    return Cost(16 * (2 * boxes + shape.anchors) + backward * 16 * (boxes + shape.anchors), 20 * boxes * (1 + backward))


def _coder(coding: str):
    """torchvision's, or ``None`` where it is not installed."""
    try:
        from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
    except (ImportError, RuntimeError):
        return None
    return BoxCoder(SSD) if coding == "deltas" else BoxLinearCoder()


def make(shape: Shape, encode: bool, backward: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    anchors = spread_boxes(shape.anchors, draw).to(device)
    options: dict[str, Any] = {"coding": shape.coding, "weights": SSD}
    if encode:
        coded = (anchors.cpu() + torch.randn(shape.anchors, 4, generator=draw)).to(device)
    else:
        coded = torch.randn(shape.anchors, 4 * shape.classes, generator=draw).to(device)
    coder = _coder(shape.coding)
    run: Callable = functools.partial(ops.encode_boxes if encode else ops.decode_boxes, coded, anchors, **options)
    peer: Callable | None = None
    if coder is not None and encode:
        peer = functools.partial(coder.encode_single, coded, anchors)
    elif coder is not None and shape.coding == "deltas":
        peer = functools.partial(coder.decode_single, coded, anchors)
    elif coder is not None:
        peer = functools.partial(coder.decode, coded, anchors)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        rows, coding = coded.detach().double().view(shape.anchors, -1, 4), definition.CODINGS.index(shape.coding)
        with torch.no_grad():
            if encode:
                wanted = definition.encode_boxes(rows, anchors.double(), coding, SSD, 1.0)
            else:
                wanted = definition.decode_boxes(rows, anchors.double(), coding, SSD, LOG_SCALE_CLIP, 1.0)
        relative = ENCODING_TOLERANCE if encode else TOLERANCE
        check_close("the definition", result.view(wanted.shape), wanted, relative)
        if peer_result is not None:
            check_close("torchvision", result.flatten(1), peer_result.flatten(1), TOLERANCE)

    if backward:
        leaves = [coded.requires_grad_(), anchors.requires_grad_()]
        out = run()
        grad = torch.rand(out.shape, generator=draw).to(device)

        def gradients(out: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
            return torch.cat([g.flatten() for g in torch.autograd.grad(out, leaves, grad, retain_graph=True)])

        def check_gradients(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
            check(out.detach(), None)
            if peer_result is not None:
                check_close("torchvision's gradient", result, peer_result, TOLERANCE)

        peer_backward = None
        if peer is not None:
            peer_out = peer()
            peer_backward = functools.partial(gradients, peer_out, grad.view(peer_out.shape))
        run_backward = functools.partial(gradients, out, grad)
        return Trial(run_backward, peer_backward, "torchvision", check_gradients, lambda _: cost(shape, True))
    return Trial(run, peer, "torchvision", check, lambda _: cost(shape, False))


def _workload(shape: Shape, kind: str = "forward", encode: bool = False, **rest) -> Workload:
    sizes = f"{shape.anchors}{f'x{shape.classes}' if shape.classes > 1 else ''}-{shape.coding}"
    name = f"{'backward-' if kind == 'backward' else ''}{sizes}"
    op = "encode_boxes" if encode else "decode_boxes"
    draw = functools.partial(make, shape, encode, kind == "backward", f"{op}-{name}")
    return Workload(op, name, name.replace("-", " "), kind, torch.float32, draw, **rest)


WORKLOADS = (
    _workload(Shape(1000, 91), quick=True),
    _workload(Shape(200_000), quick=True),
    _workload(Shape(20_000, coding="distances")),
    _workload(Shape(20_000), "backward", quick=True),
    _workload(Shape(200_000), encode=True, quick=True),
    _workload(Shape(20_000), "backward", encode=True),
)
