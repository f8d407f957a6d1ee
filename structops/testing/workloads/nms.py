"""NMS as detectors call it: proposals spread over an image, detections clustered on objects, many classes."""

from __future__ import annotations

import functools
import math

import torch

from structops import ops
from structops.reference import nms as definition
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops

WIDTH, HEIGHT = 1333, 800
THRESHOLD = 0.5
CLASSES = 80
BOXES_PER_OBJECT = 30
# Operations of one IoU and its comparison: 4 to intersect, 2 differences and 2 clamps, 1 product, 3 for the division.
IOU_FLOPS = 12
# The best M boxes alone give exactly the beginning of the whole result, so a prefix can be held against the slow
# definition at any size.
CHECKED_PREFIX = 1500
# Beyond it a peer is not called: all pairs of a million boxes are half an hour on a CPU, and 125 GB of masks on a GPU.
PEER_LIMIT = 100_000


def spread_boxes(count: int, draw: torch.Generator) -> torch.Tensor:
    """``[N, 4]`` boxes of 16-256 pixels, sides in a ratio of up to 2, anywhere in the image: proposals."""
    size = torch.empty(count).uniform_(math.log(16), math.log(256), generator=draw).exp()
    ratio = torch.empty(count).uniform_(-0.7, 0.7, generator=draw).exp().sqrt()
    wh = torch.stack([size * ratio, size / ratio], 1)
    corner = torch.rand(count, 2, generator=draw) * (torch.tensor([WIDTH, HEIGHT]) - wh)
    return torch.cat([corner, corner + wh], 1)


def clustered_boxes(count: int, draw: torch.Generator) -> torch.Tensor:
    """``[N, 4]`` about 30 jittered boxes on each object: what a detector's head leaves to be suppressed."""
    objects = spread_boxes(max(count // BOXES_PER_OBJECT, 1), draw)
    mine = objects[torch.randint(len(objects), (count,), generator=draw)]
    wh = (mine[:, 2:] - mine[:, :2]).repeat(1, 2)
    return mine + 0.1 * wh * torch.randn(count, 4, generator=draw)


DISTRIBUTIONS = {"spread": spread_boxes, "clustered": clustered_boxes}


def cost(count: int, kept: int, classes: bool) -> Cost:
    """Boxes, scores and classes read once, kept indices written once. Operations: a comparison sort, and one IoU for
    each suppressed box (with the box that suppresses it); that kept boxes overlap nothing is taken as free, since a
    spatial index could show it. No algorithm does so little: the floor is a bound, not a target."""
    sort = count * math.log2(max(count, 2))
    return Cost(count * (16 + 4 + 8 * classes) + 8 * kept, int(sort + IOU_FLOPS * (count - kept)))


def make(count: int, distribution: str, classes: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    host_boxes = DISTRIBUTIONS[distribution](count, draw)
    # Every score once: the peer promises no order of ties.
    host_scores = (torch.randperm(count, generator=draw) + 1.0) / count
    host_idxs = torch.randint(CLASSES, (count,), generator=draw) if classes else torch.zeros(count, dtype=torch.int64)
    boxes, scores, idxs = host_boxes.to(device), host_scores.to(device), host_idxs.to(device)
    library = torchvision_ops() if count <= PEER_LIMIT else None
    if classes:
        run = lambda: ops.batched_nms(boxes, scores, idxs, THRESHOLD)  # noqa: E731
        peer = library and (lambda: library.batched_nms(boxes, scores, idxs, THRESHOLD))
    else:
        run = lambda: ops.nms(boxes, scores, THRESHOLD)  # noqa: E731
        peer = library and (lambda: library.nms(boxes, scores, THRESHOLD))

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        best = host_scores.argsort(descending=True)[:CHECKED_PREFIX]
        wanted = best[definition.batched_nms(host_boxes[best], host_scores[best], host_idxs[best], THRESHOLD)]
        assert torch.equal(result[: len(wanted)].cpu(), wanted), "nms differs from the definition"
        # torchvision's CPU kernel rounds as the definition does; its CUDA kernel does not.
        on_cpu = device.type == "cpu"
        whole = peer_result if on_cpu else ops.batched_nms(host_boxes, host_scores, host_idxs, THRESHOLD)
        if whole is not None:
            other = "torchvision" if on_cpu else "the CPU kernel"
            assert torch.equal(result.cpu(), whole), f"nms keeps {len(result)} boxes, {other} {len(whole)} or others"

    return Trial(run, peer, "torchvision", check, lambda result: cost(count, len(result), classes))


def _workload(count: int, distribution: str, kind: str = "forward", classes: bool = False, **rest) -> Workload:
    op = "batched_nms" if classes else "nms"
    name = f"{'sweep-' if kind == 'sweep' else ''}{count}-{distribution}{f'-{CLASSES}-classes' if classes else ''}"
    title = f"{'sweep ' if kind == 'sweep' else ''}{count} {distribution}{f', {CLASSES} classes' if classes else ''}"
    draw = functools.partial(make, count, distribution, classes, f"{op}-{name}")
    return Workload(op, name, title, kind, torch.float32, draw, **rest)


def _all() -> tuple[Workload, ...]:
    found = []
    for count in (1000, 5000, 20_000):
        found += [_workload(count, distribution, quick=count < 20_000) for distribution in DISTRIBUTIONS]
    found += [_workload(20_000, distribution, classes=True, quick=True) for distribution in DISTRIBUTIONS]
    for count in (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000):
        short = count in (100, 1000, 10_000)
        found.append(_workload(count, "spread", "sweep", quick=short, series="boxes, spread", size=count))
    return tuple(found)


WORKLOADS = _all()
