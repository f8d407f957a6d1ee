"""NMS of rotated boxes: proposals spread over an image, detections clustered on objects, many classes."""

from __future__ import annotations

import functools
import math

import torch

from structops import ops
from structops.reference import nms_rotated as definition
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.box_iou_rotated import IOU_FLOPS, spread_boxes

THRESHOLD = 0.3
CLASSES = 15  # of DOTA, the data set of rotated boxes
BOXES_PER_OBJECT = 30
# The best boxes alone give exactly the beginning of the whole result.
CHECKED_PREFIX = 1500
# The peer is a Python loop; at 20,000 boxes it takes minutes.
MOST_FOR_PEER = 5000


def clustered_boxes(count: int, draw: torch.Generator) -> torch.Tensor:
    """``[N, 5]`` about 30 jittered boxes on each object."""
    objects = spread_boxes(max(count // BOXES_PER_OBJECT, 1), draw)
    mine = objects[torch.randint(len(objects), (count,), generator=draw)]
    jitter = 0.1 * torch.randn(count, 5, generator=draw)
    return mine + jitter * torch.cat([mine[:, 2:4], mine[:, 2:4], torch.full((count, 1), 60.0)], 1)


DISTRIBUTIONS = {"spread": spread_boxes, "clustered": clustered_boxes}


def cost(count: int, kept: int, classes: bool) -> Cost:
    """Boxes, scores and classes read once, kept indices written once. Operations: a comparison sort, and one IoU for
    each suppressed box, as for upright boxes; a bound, not a target."""
    sort = count * math.log2(max(count, 2))
    return Cost(count * (20 + 4 + 8 * classes) + 8 * kept, int(sort + IOU_FLOPS * (count - kept)))


def loop_over_iou(library, boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """What one writes with torchvision, which has the IoU of rotated boxes but no NMS of them."""
    order = scores.argsort(descending=True)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[library.box_iou(boxes[best][None], boxes[order], fmt="cxcywhr")[0] <= threshold]
    return torch.stack(kept)


def make(count: int, distribution: str, classes: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    host_boxes = DISTRIBUTIONS[distribution](count, draw)
    host_scores = (torch.randperm(count, generator=draw) + 1.0) / count
    host_idxs = torch.randint(CLASSES, (count,), generator=draw) if classes else torch.zeros(count, dtype=torch.int64)
    boxes, scores, idxs = host_boxes.to(device), host_scores.to(device), host_idxs.to(device)
    library = torchvision_ops() if count <= MOST_FOR_PEER and not classes else None
    if classes:
        run = lambda: ops.batched_nms_rotated(boxes, scores, idxs, THRESHOLD)  # noqa: E731
    else:
        run = lambda: ops.nms_rotated(boxes, scores, THRESHOLD)  # noqa: E731

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        best = host_scores.argsort(descending=True)[:CHECKED_PREFIX]
        kept = definition.batched_nms_rotated(host_boxes[best], host_scores[best], host_idxs[best], THRESHOLD)
        assert torch.equal(result[: len(kept)].cpu(), best[kept]), "nms_rotated differs from the definition"
        if peer_result is not None:  # an IoU next to the threshold can fall on either side in its float32
            share = torch.isin(peer_result, result).double().mean().item()
            assert share > 0.99, f"nms_rotated keeps {share:.1%} of what a loop over torchvision's IoU keeps"
        if device.type != "cpu":
            whole = ops.batched_nms_rotated(host_boxes, host_scores, host_idxs, THRESHOLD)
            assert torch.equal(result.cpu(), whole), "nms_rotated differs from the CPU kernel"

    return Trial(
        run=run,
        peer=library and (lambda: loop_over_iou(library, boxes, scores, THRESHOLD)),
        peer_name="a loop over torchvision's IoU",
        check=check,
        cost=lambda result: cost(count, len(result), classes),
    )


def _workload(count: int, distribution: str, kind: str = "forward", classes: bool = False, **rest) -> Workload:
    op = "batched_nms_rotated" if classes else "nms_rotated"
    name = f"{'sweep-' if kind == 'sweep' else ''}{count}-{distribution}{f'-{CLASSES}-classes' if classes else ''}"
    title = f"{'sweep ' if kind == 'sweep' else ''}{count} {distribution}{f', {CLASSES} classes' if classes else ''}"
    draw = functools.partial(make, count, distribution, classes, f"{op}-{name}")
    return Workload(op, name, title, kind, torch.float32, draw, **rest)


def _all() -> tuple[Workload, ...]:
    found = []
    for count in (1000, 5000, 20_000):
        found += [_workload(count, distribution, quick=count == 1000) for distribution in DISTRIBUTIONS]
    found += [_workload(20_000, distribution, classes=True, quick=True) for distribution in DISTRIBUTIONS]
    for count in (100, 300, 1000, 3000, 10_000, 30_000):
        found.append(
            _workload(count, "spread", "sweep", quick=count in (100, 1000), series="boxes, spread", size=count)
        )
    return tuple(found)


WORKLOADS = _all()
