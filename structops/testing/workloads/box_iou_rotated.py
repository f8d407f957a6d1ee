"""IoU of rotated boxes as detectors need it: detections with each other, anchors with objects, pairs for a loss."""

from __future__ import annotations

import functools
import math

import torch

from structops import ops
from structops.reference import box_iou_rotated as definition
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops

WIDTH, HEIGHT = 1333, 800
# Operations of one pair that overlaps: 4 integrals of 26, the relative position and the corners 36, the union 4. For
# pairs that do not, nothing is counted: a spatial index could show it.
IOU_FLOPS = 144
CHECKED_ROWS = 100


def spread_boxes(count: int, draw: torch.Generator) -> torch.Tensor:
    """``[N, 5]`` boxes of 16-256 pixels, sides in a ratio of up to 4, any angle, anywhere in the image."""
    size = torch.empty(count).uniform_(math.log(16), math.log(256), generator=draw).exp()
    ratio = torch.empty(count).uniform_(-0.7, 0.7, generator=draw).exp()
    centre = torch.rand(count, 2, generator=draw) * torch.tensor([WIDTH, HEIGHT])
    angle = torch.empty(count, 1).uniform_(-90, 90, generator=draw)
    return torch.cat([centre, torch.stack([size * ratio, size / ratio], 1), angle], 1)


def make(n: int, m: int, elementwise: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    host1 = spread_boxes(n, draw)
    host2 = spread_boxes(m, draw)
    if elementwise:  # a prediction and its target overlap
        host2 = host1 + 0.2 * torch.randn(m, 5, generator=draw) * torch.cat(
            [host1[:, 2:4].repeat(1, 2), host1[:, 2:3]], 1
        )
        host2[:, 2:4].clamp_(min=1)
    boxes1, boxes2 = host1.to(device), host2.to(device)
    library = torchvision_ops()
    peer = None
    if library and not elementwise:  # it has no pairs
        peer = lambda: library.box_iou(boxes1, boxes2, fmt="cxcywhr")  # noqa: E731

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        rows = slice(None) if elementwise else slice(CHECKED_ROWS)
        wanted = definition.box_iou_rotated(host1[rows], host2, elementwise)
        assert torch.equal(result[rows].cpu(), wanted), "box_iou_rotated differs from the definition"
        if peer_result is not None:
            # Its own float32 geometry, which fails in a pair of a million.
            share = ((result - peer_result).abs() > 1e-4).double().mean().item()
            assert share < 1e-5, f"box_iou_rotated differs from torchvision's in {share:.1e} of all pairs"

    def cost(result: torch.Tensor) -> Cost:
        return Cost(4 * (5 * (n + m) + result.numel()), IOU_FLOPS * int((result > 0).sum()))

    return Trial(
        run=lambda: ops.box_iou_rotated(boxes1, boxes2, elementwise=elementwise),
        peer=peer,
        peer_name="torchvision",
        check=check,
        cost=cost,
    )


def _workload(n: int, m: int, elementwise: bool = False, kind: str = "forward", **rest) -> Workload:
    size = f"{n}-pairs" if elementwise else f"{n}x{m}"
    name = f"{'sweep-' if kind == 'sweep' else ''}{size}"
    title = f"{'sweep ' if kind == 'sweep' else ''}{size.replace('-', ' ')}"
    draw = functools.partial(make, n, m, elementwise, f"box_iou_rotated-{name}")
    return Workload("box_iou_rotated", name, title, kind, torch.float32, draw, **rest)


WORKLOADS = (
    _workload(1000, 1000, quick=True),
    _workload(50, 20_000, quick=True),
    _workload(5000, 5000, devices=("cuda",)),
    _workload(100_000, 100_000, elementwise=True, quick=True),
    *(
        _workload(n, n, kind="sweep", quick=n <= 1000, series="boxes with boxes", size=n)
        for n in (100, 300, 1000, 3000)
    ),
)
