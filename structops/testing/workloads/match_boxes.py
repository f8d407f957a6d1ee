"""Matching as detectors train with it: the anchors of a pyramid (RPN, RetinaNet), proposals (box head), and a sweep
over the number of ground truths."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import torch

from structops import ops
from structops.reference import match_boxes as definition
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.nms import IOU_FLOPS, spread_boxes

WIDTH, HEIGHT = 1344, 800
RATIOS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Detector:
    """Where its anchors are, and how it matches them: ``(high, low, low-quality matches)``."""

    title: str
    rule: tuple[float, float, bool]
    strides: tuple[int, ...] = ()  # none: 2000 proposals instead
    sizes: tuple[float, ...] = ()  # of an anchor, in strides


RPN = Detector("RPN", (0.7, 0.3, True), (4, 8, 16, 32, 64), (8.0,))
RETINANET = Detector("RetinaNet", (0.5, 0.4, True), (8, 16, 32, 64, 128), (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)))
BOX_HEAD = Detector("box head", (0.5, 0.5, False))


def pyramid_anchors(detector: Detector) -> torch.Tensor:
    """``[N, 4]``, as torchvision orders them: level, row, column, then size and ratio."""
    found = []
    for stride in detector.strides:
        size = stride * torch.tensor(detector.sizes).repeat(len(RATIOS))
        ratio = torch.tensor(RATIOS).repeat_interleave(len(detector.sizes)).sqrt()
        half = torch.stack([size / ratio, size * ratio], 1) / 2
        x, y = (torch.arange(-(-extent // stride)) * stride for extent in (WIDTH, HEIGHT))
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2).view(-1, 1, 2)
        found.append(torch.cat([centre - half, centre + half], 2).view(-1, 4))
    return torch.cat(found)


def torchvision_matcher(*rule: Any) -> Any:
    if torchvision_ops() is None:
        return None
    return importlib.import_module("torchvision.models.detection._utils").Matcher(*rule)


def cost(truths: torch.Tensor, anchors: torch.Tensor, images: int) -> Cost:
    """Boxes read once, matches and IoUs written once. Operations: the IoU of the pairs that meet; that the others do
    not is taken as free, since a spatial index could show it."""
    meeting = 0
    for x1, y1, x2, y2 in truths.view(-1, 4).tolist():
        a = anchors.T
        meeting += int(((a[0] < x2) & (x1 < a[2]) & (a[1] < y2) & (y1 < a[3])).sum())
    return Cost(16 * len(anchors) + 4 * truths.numel() + 12 * images * len(anchors), IOU_FLOPS * meeting)


def make(detector: Detector, images: int, truths: int, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    host_gt = torch.stack([spread_boxes(truths, draw) for _ in range(images)])
    if detector.strides:
        host_anchors = pyramid_anchors(detector)
    else:  # a quarter of the proposals are good, as a trained RPN gives them
        host_anchors = spread_boxes(2000, draw)
        host_anchors[::4] = host_gt[0, torch.randint(truths, (500,), generator=draw)]
        host_anchors += 10 * torch.randn(2000, 4, generator=draw)
    gt, anchors = host_gt.to(device), host_anchors.to(device)
    valid = torch.full((images,), truths, dtype=torch.int64, device=device)

    def run() -> Any:
        if images == 1:
            return ops.match_boxes(gt[0], anchors, *detector.rule)
        return ops.match_boxes(gt, anchors, *detector.rule, valid=valid)

    library, matcher = torchvision_ops(), torchvision_matcher(*detector.rule)

    def peer() -> Any:
        return [matcher(library.box_iou(each, anchors)) for each in gt]

    def check(result: Any, peer_result: Any) -> None:
        matches, ious = (t.cpu().view(images, -1) for t in result)
        for i in range(images):
            wanted, best = definition.match_boxes(host_gt[i], host_anchors, *detector.rule, None)
            assert torch.equal(matches[i], wanted), "match_boxes differs from the definition"
            assert torch.equal(ious[i], best), "match_boxes differs from the definition in an IoU"
            if peer_result is not None:
                assert torch.equal(peer_result[i].cpu(), wanted), "torchvision matches other boxes"

    title = "torchvision's box_iou and Matcher"
    return Trial(run, library and peer, title, check, lambda result: cost(host_gt, host_anchors, images))


def _workload(detector: Detector, truths: int, images: int = 1, kind: str = "forward", **rest: Any) -> Workload:
    sweep = "sweep-" if kind == "sweep" else ""
    batch = f"-{images}-images" if images > 1 else ""
    name = f"{sweep}{detector.title.replace(' ', '-').lower()}-{truths}{batch}"
    title = f"{sweep.replace('-', ' ')}{detector.title}, {truths} ground truths{batch.replace('-', ' ')}"
    draw = functools.partial(make, detector, images, truths, f"match_boxes-{name}")
    return Workload("match_boxes", name, title, kind, torch.float32, draw, **rest)


WORKLOADS = (
    _workload(RPN, 50, quick=True),
    _workload(RPN, 20, images=4),
    _workload(RETINANET, 50),
    _workload(BOX_HEAD, 50, quick=True),
    *(
        _workload(RPN, n, kind="sweep", quick=n in (1, 30), series="ground truths, 268,569 anchors", size=n)
        for n in (1, 3, 10, 30, 100, 300)
    ),
)
