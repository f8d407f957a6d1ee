"""Masks of detections pasted as Mask R-CNN does it: 100 of 28 x 28 into an image of 800 x 1333."""

from __future__ import annotations

import functools
from typing import Any

import torch

from structops import ops
from structops.reference.paste_masks import pack_bits
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops

SIZE = (800, 1333)
SIDE = 28
FLOPS = 3  # a pixel of a box: two rows of its mask, weighted
KINDS: dict[str, dict[str, Any]] = {"flags": {}, "packed": {"packed": True}, "values": {"threshold": None}}


def detections(count: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks ``[K, 1, 28, 28]`` with a frayed ellipse each, and boxes ``[K, 4]``, more small ones than large."""
    size = torch.tensor([SIZE[1], SIZE[0]])
    centre, side = (
        torch.rand(count, 2, generator=draw) * size,
        4 + torch.rand(count, 2, generator=draw) ** 2 * 0.6 * size,
    )
    boxes = torch.cat([centre - side / 2, centre + side / 2], 1).clamp(min=0)
    boxes = torch.minimum(boxes, size.repeat(2).float())
    at = torch.linspace(-1, 1, SIDE)
    radius = (at[:, None] ** 2 + at**2).sqrt() + 0.15 * torch.randn(count, 1, SIDE, SIDE, generator=draw)
    return torch.sigmoid(8 * (0.85 - radius)), boxes


def cost(masks: torch.Tensor, boxes: torch.Tensor, result: torch.Tensor) -> Cost:
    """Masks and boxes read once, the result written once; only pixels in a box are computed."""
    inside = int((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())
    read = 4 * (masks.numel() + boxes.numel())
    return Cost(read + result.numel() * result.element_size(), FLOPS * inside)


def _torchvision():
    if torchvision_ops() is None:
        return None
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    return paste_masks_in_image


def make(count: int, kind: str, name: str, device: torch.device) -> Trial:
    masks, boxes = (t.to(device) for t in detections(count, generator(name)))
    run = functools.partial(ops.paste_masks, masks, boxes, SIZE, **KINDS[kind])
    theirs = _torchvision()

    def peer() -> torch.Tensor:
        image = theirs(masks, boxes, SIZE)
        return image if kind == "values" else image > 0.5

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        if peer_result is None:
            return
        wanted = peer_result if kind == "values" else peer_result[:, 0]
        if device.type == "cpu":
            assert torch.equal(result, pack_bits(wanted) if kind == "packed" else wanted), "differs from torchvision"
        elif kind != "packed":  # whose kernel for a GPU rounds in another way
            different = (result.float() - wanted.float()).abs().mean().item()
            assert different < 1e-5, f"differs from torchvision by {different:.2e} a pixel"

    return Trial(run, peer if theirs else None, "torchvision", check, lambda result: cost(masks, boxes, result))


def _workload(count: int, kind: str, workload_kind: str = "forward", **rest: Any) -> Workload:
    prefix = "sweep-" if workload_kind == "sweep" else ""
    name, title = f"{prefix}{count}-{kind}", f"{count} detections, 800 x 1333, {kind}"
    draw = functools.partial(make, count, kind, f"paste_masks-{name}")
    return Workload("paste_masks", name, title, workload_kind, torch.float32, draw, **rest)


WORKLOADS = (
    *(_workload(100, kind, quick=True) for kind in KINDS),
    _workload(10, "flags"),
    *(
        _workload(count, "flags", "sweep", quick=count in (10, 100), series="detections", size=count)
        for count in (1, 3, 10, 30, 100)
    ),
)
