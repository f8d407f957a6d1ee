"""Suppression along time as detectors of actions call it: the proposals of a few videos, each by itself."""

from __future__ import annotations

import functools

import torch

from structops import ops
from structops.reference.nms_1d import nms_1d as definition
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.nms import CHECKED_PREFIX
from structops.testing.workloads.nms import cost as cost_of_boxes

THRESHOLD, VIDEOS, LENGTH = 0.6, 8, 1000.0


def cost(count: int, kept: int, classes: bool) -> Cost:
    """As of boxes, with two coordinates and without the operations of a second axis."""
    boxes = cost_of_boxes(count, kept, classes)
    return Cost(boxes.bytes - 8 * count, boxes.flops - 5 * (count - kept))


def make(count: int, videos: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    start = LENGTH * torch.rand(count, generator=draw)
    segments = torch.stack([start, start + torch.empty(count).uniform_(2, 200, generator=draw)], 1).to(device)
    # Every score once: the peer promises no order of ties.
    scores = ((torch.randperm(count, generator=draw) + 1.0) / count).to(device)
    idxs = torch.randint(VIDEOS, (count,), generator=draw).to(device) if videos else None
    flat = torch.stack([segments[:, 0], torch.zeros_like(start), segments[:, 1], torch.ones_like(start)], 1)
    library = torchvision_ops()
    run = functools.partial(ops.nms_1d, segments, scores, THRESHOLD, idxs=idxs)
    peer = None
    if library is not None and idxs is not None:
        peer = functools.partial(library.batched_nms, flat, scores, idxs, THRESHOLD)
    elif library is not None:
        peer = functools.partial(library.nms, flat, scores, THRESHOLD)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        best = scores.argsort(descending=True)[:CHECKED_PREFIX]
        wanted = best[definition(segments[best], scores[best], THRESHOLD, None if idxs is None else idxs[best])]
        assert torch.equal(result[: len(wanted)], wanted), "nms_1d differs from the definition"
        if peer_result is not None and idxs is None and device.type == "cpu":
            assert torch.equal(result, peer_result), "nms_1d differs from torchvision"

    return Trial(run, peer, "torchvision", check, lambda result: cost(count, len(result), videos))


def _workload(count: int, videos: bool) -> Workload:
    name = f"{count}{f'-{VIDEOS}-videos' if videos else ''}"
    title = f"{count} segments{f', {VIDEOS} videos' if videos else ''}"
    draw = functools.partial(make, count, videos, f"nms_1d-{name}")
    return Workload("nms_1d", name, title, "forward", torch.float32, draw, quick=True)


WORKLOADS = (_workload(1000, False), _workload(10_000, False), _workload(16_000, True))
