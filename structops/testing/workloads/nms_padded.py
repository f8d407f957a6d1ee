"""Fixed-shape suppression as detectors call it: proposals by level, detections by class, a batch at a time."""

from __future__ import annotations

import functools
from typing import Any

import torch

from structops import ops
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.nms import DISTRIBUTIONS, cost

THRESHOLD = 0.5


def make(images: int, count: int, max_output: int, distribution: str, classes: int, name: str, device: torch.device):
    draw = generator(name)
    boxes = torch.stack([DISTRIBUTIONS[distribution](count, draw) for _ in range(images)]).to(device)
    # Every score once: the peer promises no order of ties.
    scores = torch.stack([(torch.randperm(count, generator=draw) + 1.0) / count for _ in range(images)]).to(device)
    idxs = torch.randint(classes, (images, count), generator=draw).to(device) if classes else None
    library = torchvision_ops()

    def run() -> Any:
        return ops.nms_padded(boxes, scores, THRESHOLD, max_output, idxs=idxs)

    def loop() -> Any:
        if idxs is None:
            each = [library.nms(b, s, THRESHOLD) for b, s in zip(boxes, scores, strict=True)]
        else:
            each = [library.batched_nms(*image, THRESHOLD) for image in zip(boxes, scores, idxs, strict=True)]
        return [kept[:max_output] for kept in each]

    def check(result: Any, peer_result: Any) -> None:
        indices, counts = (t.cpu() for t in result)
        for image in range(images):
            of_image = torch.zeros(count, dtype=torch.int64) if idxs is None else idxs[image].cpu()
            wanted = ops.batched_nms(boxes[image].cpu(), scores[image].cpu(), of_image, THRESHOLD)[:max_output]
            if peer_result is not None and device.type == "cpu":
                assert torch.equal(peer_result[image], wanted), "nms differs from torchvision"
            expected = torch.nn.functional.pad(wanted, (0, max_output - len(wanted)), value=-1)
            assert torch.equal(indices[image], expected), f"nms_padded differs from nms on image {image}"
            assert counts[image] == len(wanted)

    def least(result: Any) -> Cost:
        each = [cost(count, int(kept), classes > 0) for kept in result[1]]
        padding = 8 * (max_output * images - int(result[1].sum()))
        return Cost(sum(c.bytes for c in each) + padding, sum(c.flops for c in each))

    peer = "torchvision, image by image"
    return Trial(run, loop if library else None, peer, check, least)


def _workload(
    images: int, count: int, max_output: int, distribution: str, classes: int = 0, kind: str = "forward", **rest
) -> Workload:
    of_classes = f"-{classes}-classes" if classes else ""
    name = f"{'sweep-' if kind == 'sweep' else ''}{images}x{count}-{distribution}{of_classes}-{max_output}"
    title = f"{images} x {count} {distribution}{f', {classes} classes' if classes else ''}, {max_output} kept"
    draw = functools.partial(make, images, count, max_output, distribution, classes, f"nms_padded-{name}")
    return Workload("nms_padded", name, title, kind, torch.float32, draw, **rest)


WORKLOADS = (
    # The proposals of a pyramid after top-k: one class, then each level by itself, as detectors have it.
    _workload(8, 4819, 1000, "spread", quick=True),
    _workload(8, 4819, 1000, "spread", 5, quick=True),
    _workload(2, 4819, 1000, "spread", 5),
    # Detections of a head over all classes.
    _workload(8, 5000, 100, "clustered", 80, quick=True),
    _workload(64, 300, 100, "clustered", 20),
    *(
        _workload(images, 1000, 300, "clustered", kind="sweep", quick=images in (1, 16), series="images", size=images)
        for images in (1, 2, 4, 8, 16, 32)
    ),
)
