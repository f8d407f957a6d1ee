"""Soft NMS of a detector's boxes: one class, then eighty."""

from __future__ import annotations

import functools
from typing import Any

import torch

from structops import ops
from structops.ops.soft_nms import METHODS
from structops.reference import soft_nms as definition
from structops.testing.workloads import Cost, Trial, Workload, generator
from structops.testing.workloads.nms import CLASSES, DISTRIBUTIONS, IOU_FLOPS

THRESHOLD, SIGMA, SCORE_THRESHOLD = 0.3, 0.5, 0.001
#: the definition, a few torch operators a step, is what people write; beyond so many boxes nobody waits for it
PEER_LIMIT = 5000


def cost(count: int, taken: int, classes: bool) -> Cost:
    """Boxes, scores and classes read once, results written once. Operations: an IoU for each box taken, the least that
    any method does which lowers at all; that most pairs meet not at all is taken as free."""
    return Cost(count * (16 + 4 + 8 * classes) + 12 * count, IOU_FLOPS * taken)


def make(count: int, distribution: str, method: Any, classes: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    boxes, scores = DISTRIBUTIONS[distribution](count, draw).to(device), torch.rand(count, generator=draw).to(device)
    idxs = torch.randint(CLASSES, (count,), generator=draw).to(device) if classes else None
    run: Any = functools.partial(ops.soft_nms, boxes, scores, THRESHOLD, idxs=idxs, method=method)
    arguments = (boxes, scores, idxs, THRESHOLD, METHODS.index(method), SIGMA, SCORE_THRESHOLD, count)
    peer: Any = functools.partial(definition.soft_nms, *arguments) if count <= PEER_LIMIT else None

    def check(result: Any, peer_result: Any) -> None:
        indices, decayed, taken = result
        assert (decayed[:-1] >= decayed[1:]).all(), "scores rise"
        assert torch.equal(indices[:taken].unique(), indices[:taken].sort().values), "a box is taken twice"
        if peer_result is not None:
            assert all(map(torch.equal, result, peer_result)), "soft_nms differs from the definition"

    return Trial(run, peer, "torch, box by box", check, lambda result: cost(count, int(result[2]), classes))


def _workload(count: int, distribution: str, method: str, classes: bool = False, quick: bool = False) -> Workload:
    name = f"{count}-{distribution}-{method}{f'-{CLASSES}-classes' if classes else ''}"
    title = f"{count} {distribution}, {method}{f', {CLASSES} classes' if classes else ''}"
    draw = functools.partial(make, count, distribution, method, classes, f"soft_nms-{name}")
    return Workload("soft_nms", name, title, "forward", torch.float32, draw, quick=quick)


WORKLOADS = (
    _workload(1000, "clustered", "linear", quick=True),
    _workload(1000, "spread", "gaussian", quick=True),
    _workload(5000, "clustered", "linear"),
    _workload(5000, "spread", "gaussian"),
    _workload(5000, "clustered", "gaussian", classes=True),
    _workload(20_000, "spread", "gaussian"),
    _workload(20_000, "clustered", "gaussian", classes=True),
)
