"""Masks on their way into a COCO results file: those of 100 detections, and the worst there is."""

from __future__ import annotations

import functools
import importlib
import itertools
from typing import Any

import torch

from structops import ops
from structops.reference.paste_masks import pack_bits
from structops.testing.workloads import Cost, Trial, Workload, generator
from structops.testing.workloads.paste_masks import SIZE, detections


def pycocotools():
    """``pycocotools.mask``, or ``None`` where it is not installed."""
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError:
        return None


def pasted(count: int, draw: torch.Generator) -> torch.Tensor:
    """What Mask R-CNN finds, a few runs in every other column of a box."""
    return ops.paste_masks(*detections(count, draw), SIZE)


def noise(count: int, draw: torch.Generator) -> torch.Tensor:
    """Runs of two pixels on average: half a million a mask."""
    return torch.rand(count, *SIZE, generator=draw) < 0.5


def make(masks_of: Any, count: int, packed: bool, name: str, device: torch.device) -> Trial:
    flags = masks_of(count, generator(name))
    masks = (pack_bits(flags) if packed else flags).to(device)
    options = {"width": SIZE[1]} if packed else {}
    coco = pycocotools()
    whole_masks = flags.numpy()

    def peer() -> list[bytes]:
        import numpy as np

        return [coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"] for mask in whole_masks]

    def check(result: tuple[torch.Tensor, torch.Tensor], peer_result: list[bytes] | None) -> None:
        text, ends = result[0].cpu().numpy().tobytes(), result[1].tolist()
        assert len(ends) == count + 1
        if peer_result is not None:
            found = [text[a:b] for a, b in itertools.pairwise(ends)]
            assert found == peer_result, "differs from pycocotools"

    def cost(result: tuple[torch.Tensor, torch.Tensor]) -> Cost:
        return Cost(masks.numel() + result[0].numel() + 8 * result[1].numel(), 0)

    run = functools.partial(ops.encode_masks, masks, **options)
    return Trial(run, peer if coco else None, "pycocotools, masks as they are", check, cost)


def _workload(masks_of: Any, count: int, packed: bool = False, kind: str = "forward", **rest: Any) -> Workload:
    name = f"{'sweep-' if kind == 'sweep' else ''}{count}-{masks_of.__name__}{'-packed' if packed else ''}"
    title = f"{count} masks, 800 x 1333, {masks_of.__name__}{', packed' if packed else ''}"
    draw = functools.partial(make, masks_of, count, packed, f"encode_masks-{name}")
    return Workload("encode_masks", name, title, kind, torch.bool, draw, **rest)


WORKLOADS = (
    _workload(pasted, 100, quick=True),
    _workload(pasted, 100, packed=True),
    _workload(noise, 100),
    _workload(noise, 10, quick=True),
    *(
        _workload(pasted, count, kind="sweep", quick=count in (3, 30), series="masks", size=count)
        for count in (1, 3, 10, 30, 100)
    ),
)
