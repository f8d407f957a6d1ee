"""Matrix NMS of a detector's boxes, and of masks whose overlaps are known."""

from __future__ import annotations

import functools
from typing import Any

import torch

from structops import ops
from structops.reference.matrix_nms import GAUSSIAN, pairwise_iou
from structops.reference.matrix_nms import matrix_nms as definition
from structops.testing.workloads import Cost, Trial, Workload, generator
from structops.testing.workloads.nms import CLASSES, DISTRIBUTIONS, IOU_FLOPS

SIGMA = 2.0


def solo(scores: torch.Tensor, overlap: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """As SOLOv2's authors have it, on overlaps ``[N, N]``: whole matrices, sorted by score beforehand."""
    order = scores.argsort(descending=True, stable=True)
    overlap = overlap[order][:, order].triu(diagonal=1)
    if labels is not None:
        labels = labels[order]
        overlap = overlap * (labels[:, None] == labels)
    worst = overlap.max(0).values[:, None]
    weights = (torch.exp(-SIGMA * overlap**2) / torch.exp(-SIGMA * worst**2)).min(0).values
    return torch.empty_like(scores).scatter_(0, order, scores[order] * weights)


def make(count: int, distribution: str, classes: bool, given: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    boxes, scores = DISTRIBUTIONS[distribution](count, draw).to(device), torch.rand(count, generator=draw).to(device)
    idxs = torch.randint(CLASSES, (count,), generator=draw).to(device) if classes else None
    ious = pairwise_iou(boxes) if given else None
    run: Any = functools.partial(ops.matrix_nms, None if given else boxes, scores, idxs=idxs, ious=ious)

    def peer() -> torch.Tensor:
        return solo(scores, pairwise_iou(boxes) if ious is None else ious, idxs)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        wanted = definition(scores, None if given else boxes, ious, idxs, GAUSSIAN, SIGMA)
        assert torch.equal(result, wanted), "matrix_nms differs from the definition"
        assert peer_result is not None
        torch.testing.assert_close(result, peer_result, rtol=1e-5, atol=1e-6)

    # Once each: boxes or the half of the overlaps that counts, scores, classes, results; an IoU a box at the least.
    moved = count * (4 + 4 + 8 * classes) + (2 * count * count if given else 16 * count)
    return Trial(run, peer, "torch, SOLOv2's way", check, lambda _: Cost(moved, 0 if given else IOU_FLOPS * count))


def _workload(count: int, distribution: str, classes: bool = False, given: bool = False, quick: bool = True):
    parts = [f"{count}", distribution, *([f"{CLASSES}-classes"] if classes else []), *(["ious"] if given else [])]
    name = "-".join(parts)
    title = f"{count} {distribution}{f', {CLASSES} classes' if classes else ''}{', overlaps given' if given else ''}"
    draw = functools.partial(make, count, distribution, classes, given, f"matrix_nms-{name}")
    return Workload("matrix_nms", name, title, "forward", torch.float32, draw, quick=quick)


WORKLOADS = (
    _workload(500, "clustered", given=True),
    _workload(1000, "clustered"),
    _workload(5000, "spread", quick=False),
    _workload(5000, "clustered", classes=True, quick=False),
)
