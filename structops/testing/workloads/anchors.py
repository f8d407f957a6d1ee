"""Anchors of whole detectors: RPN and RetinaNet on a pyramid, SSD's default boxes, a YOLO head's grid points."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from structops import ops
from structops.ops.anchors import cell_anchors, wh_pairs
from structops.reference import anchors as definition
from structops.testing.cases.anchors import torchvision_anchors, torchvision_boxes
from structops.testing.workloads import Cost, Trial, Workload, torchvision_ops

Grids = Sequence[tuple[int, int]]
# Of an image of 800 x 1333, which torchvision pads to whole strides of 32.
PYRAMID: Grids = ((200, 336), (100, 168), (50, 84), (25, 42), (13, 21))
STRIDES = (4, 8, 16, 32, 64)
SSD300: Grids = tuple((side, side) for side in (38, 19, 10, 5, 3, 1))
SSD_SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
SSD_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
YOLO640: Grids = ((80, 80), (40, 40), (20, 20))


def _flat(pairs: Grids) -> list[int]:
    return [side for pair in pairs for side in pair]


def _trial(
    run: Callable[[], torch.Tensor],
    peer: Callable[[], torch.Tensor] | None,
    peer_name: str,
    wanted: Callable[[], torch.Tensor],
    flops: int,
) -> Trial:
    """flops: of one element of the result, all of which is written once, and nothing of any size read."""

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        assert torch.equal(result, wanted()), "differs from the definition"
        if peer_result is not None:
            assert torch.equal(result, peer_result), f"differs from {peer_name}"

    def cost(result: torch.Tensor) -> Cost:
        return Cost(result.numel() * result.element_size(), flops * result.numel())

    return Trial(run, peer, peer_name, check, cost)


def _anchors(sizes: Sequence[Sequence[float]], grids: Grids, strides: Sequence[int], device: torch.device) -> Trial:
    cells = [cell_anchors(of_level, (0.5, 1.0, 2.0), device=device) for of_level in sizes]
    pairs = [(s, s) for s in strides]
    return _trial(
        lambda: ops.generate_anchors(cells, grids, strides),
        (lambda: torchvision_anchors(cells, grids, pairs)) if torchvision_ops() else None,
        "torchvision",
        lambda: definition.generate_anchors(cells, _flat(grids), _flat(pairs)),
        flops=1,
    )


def _boxes(device: torch.device) -> Trial:
    levels = zip(SSD_SCALES, SSD_SCALES[1:], SSD_RATIOS, strict=False)
    pairs = [wh_pairs(a, b, ratios, device=device) for a, b, ratios in levels]
    # torchvision makes centres on the CPU and mixes them with its pairs, which it keeps there.
    on_cpu = [p.cpu() for p in pairs]
    return _trial(
        lambda: ops.default_boxes(pairs, SSD300, (300, 300)),
        (lambda: torchvision_boxes(on_cpu, SSD300, (300, 300)).to(device)) if torchvision_ops() else None,
        "torchvision",
        lambda: definition.default_boxes(pairs, _flat(SSD300), [300, 300], [], True),
        flops=2,
    )


def _points(device: torch.device) -> Trial:
    like = torch.empty(1, device=device)
    return _trial(
        lambda: ops.yolo_grid(YOLO640, (8, 16, 32), like, with_stride=True),
        None,
        "",
        lambda: definition.yolo_grid(like, _flat(YOLO640), [8, 8, 16, 16, 32, 32], 0.5, True),
        flops=1,
    )


def _workload(op: str, title: str, make: Callable[[torch.device], Trial]) -> Workload:
    name = title.replace(", ", "-").replace(" ", "-").lower()
    return Workload(op, name, title, "forward", torch.float32, make, quick=True)


RPN = [(s,) for s in (32, 64, 128, 256, 512)]
RETINANET = [(s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (32, 64, 128, 256, 512)]
RETINANET_GRIDS = (*PYRAMID[1:], (7, 11))
WORKLOADS = (
    _workload("generate_anchors", "RPN, 5 levels", functools.partial(_anchors, RPN, PYRAMID, STRIDES)),
    _workload(
        "generate_anchors",
        "RetinaNet, 5 levels",
        functools.partial(_anchors, RETINANET, RETINANET_GRIDS, (*STRIDES[1:], 128)),
    ),
    _workload("default_boxes", "SSD300, 6 levels", _boxes),
    _workload("yolo_grid", "YOLO 640, 3 levels", _points),
)
