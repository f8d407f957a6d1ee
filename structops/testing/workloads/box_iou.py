"""IoU of boxes as detectors ask for it: proposals against each other, anchors against objects, a loss box by box."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from structops import ops
from structops.reference.box_iou import KINDS
from structops.reference.box_iou import box_iou as definition
from structops.testing.workloads import Cost, Trial, Workload, check_close, generator, torchvision_ops
from structops.testing.workloads.nms import spread_boxes

FUNCTIONS = dict(zip(KINDS, ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"), strict=True))
# Operations of one pair, a division counted as one: intersection and union 10, a hull 6, ...
FLOPS = {"plain": 11, "generalized": 20, "distance": 27, "complete": 36}
EPS = 1e-7
CHECKED, TOLERANCE = 200, 1e-5


@dataclass(frozen=True)
class Shape:
    """One call: ``rows`` boxes with each of ``columns``, or (0) each with its own."""

    rows: int
    columns: int = 0

    @property
    def pairs(self) -> int:
        return self.rows * (self.columns or 1)


def cost(shape: Shape, kind: str, backward: bool) -> Cost:
    """Boxes read once, a value a pair written once. The backward reads it instead, writes a gradient a coordinate, and
    computes each pair's forward and some three times as much for its derivative."""
    boxes = shape.rows + (shape.columns or shape.rows)
    flops = shape.pairs * FLOPS[kind]
    return Cost(16 * boxes * (1 + backward) + 4 * shape.pairs, 4 * flops if backward else flops)


def make(shape: Shape, kind: str, backward: bool, name: str, device: torch.device) -> Trial:
    draw, elementwise = generator(name), not shape.columns
    boxes1 = spread_boxes(shape.rows, draw).to(device)
    boxes2 = spread_boxes(shape.columns or shape.rows, draw).to(device)
    if elementwise:  # predictions near their objects
        boxes2 = boxes1 + 4 * torch.randn(boxes1.shape, generator=draw).to(device)
    library = torchvision_ops()
    run: Callable = functools.partial(getattr(ops, FUNCTIONS[kind]), boxes1, boxes2, elementwise=elementwise)
    peer: Callable | None = None
    if library is not None:
        function = getattr(library, FUNCTIONS[kind])
        if elementwise:
            peer = lambda: function(boxes1[:, None], boxes2[:, None])[:, 0, 0]  # noqa: E731
        else:
            peer = functools.partial(function, boxes1, boxes2)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        some = torch.linspace(0, shape.rows - 1, min(CHECKED, shape.rows), device=device).long()
        with torch.no_grad():
            one, other = boxes1[some].double(), (boxes2[some] if elementwise else boxes2).double()
            options = (KINDS.index(kind), 0, elementwise, EPS)
            wanted = (
                definition(one, other, *options) if elementwise else definition(one[None], other[None], *options)[0]
            )
        check_close("the definition", result[some], wanted, TOLERANCE)
        if peer_result is not None:
            check_close("torchvision", result, peer_result, TOLERANCE)

    if backward:
        leaves = [boxes1.requires_grad_(), boxes2.requires_grad_()]
        out = run()
        grad = torch.rand(out.shape, generator=draw).to(device)

        def gradients(out: torch.Tensor) -> torch.Tensor:
            return torch.cat(torch.autograd.grad(out, leaves, grad, retain_graph=True))

        def check_gradients(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
            check(out.detach(), None)
            if peer_result is not None:
                check_close("torchvision's gradient", result, peer_result, TOLERANCE)

        run_backward = functools.partial(gradients, out)
        peer_backward = None if peer is None else functools.partial(gradients, peer())
        return Trial(run_backward, peer_backward, "torchvision", check_gradients, lambda _: cost(shape, kind, True))
    return Trial(run, peer, "torchvision", check, lambda _: cost(shape, kind, False))


def _workload(shape: Shape, kind: str, workload_kind: str = "forward", **rest) -> Workload:
    sizes = f"{shape.rows}x{shape.columns}" if shape.columns else f"{shape.rows}-elementwise"
    prefix = "" if workload_kind == "forward" else f"{workload_kind}-"
    draw = functools.partial(make, shape, kind, workload_kind == "backward", f"{kind}-{prefix}{sizes}")
    title = f"{prefix.replace('-', ' ')}{sizes.replace('-', ' ')}"
    return Workload(FUNCTIONS[kind], f"{prefix}{sizes}", title, workload_kind, torch.float32, draw, **rest)


def _all() -> tuple[Workload, ...]:
    found = [
        _workload(Shape(5000, 5000), "plain", quick=True),
        _workload(Shape(20, 200_000), "plain", quick=True),
        _workload(Shape(2000, 2000), "generalized", quick=True),
        _workload(Shape(2000, 2000), "distance", quick=True),
        _workload(Shape(2000, 2000), "complete", quick=True),
    ]
    for kind in ("generalized", "complete"):
        found.append(_workload(Shape(20_000), kind, quick=kind == "generalized"))
        found.append(_workload(Shape(20_000), kind, "backward", quick=kind == "generalized"))
        found.append(_workload(Shape(1000, 1000), kind, "backward", quick=kind == "generalized"))
    for count in (30, 100, 300, 1000, 3000):
        options = {"quick": count in (100, 1000), "series": "boxes squared", "size": count}
        found.append(_workload(Shape(count, count), "plain", "sweep", **options))
    return tuple(found)


WORKLOADS = _all()
