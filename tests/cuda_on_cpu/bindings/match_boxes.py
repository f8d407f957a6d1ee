"""match_boxes by the CUDA kernels: what csrc/match_boxes/match_boxes_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases._draw import boxes

from ..emulator import Emulator, poisoned


def _two_tiles(g):
    return {
        "gt": boxes(g, 300, 800, 600, smallest=30),
        "anchors": boxes(g, 270, 800, 600, smallest=30),
        "high_threshold": 0.5,
        "low_threshold": 0.3,
        "allow_low_quality_matches": True,
    }


EXTRA = {"match_boxes": (Case("two-tiles-of-ground-truths", _two_tiles),)}


def match_boxes(
    emulator: Emulator,
    gt: torch.Tensor,
    anchors: torch.Tensor,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool,
    valid: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    double = torch.float64 in (gt.dtype, anchors.dtype)
    dtype, bits = (torch.float64, torch.int64) if double else (torch.float32, torch.int32)
    gt, anchors = gt.to(dtype).contiguous(), anchors.to(dtype).contiguous()
    valid = None if valid is None else valid.long().contiguous()
    images = len(gt) if gt.dim() == 3 else 1
    truths, count = gt.shape[-2], anchors.shape[-2]
    thresholds = high_threshold, low_threshold, allow_low_quality_matches
    parameters = images, truths, count, anchors.dim() == 2, *thresholds
    shape = (*gt.shape[:-2], count)
    matches = poisoned(*shape, like=gt, dtype=torch.int64)
    ious = poisoned(*shape, like=gt, dtype=dtype)
    block_best = truth_best = None
    if allow_low_quality_matches:
        block_best = poisoned(emulator.launch("match_boxes_block_best", *parameters), like=gt, dtype=bits)
        truth_best = torch.zeros(images, truths, dtype=bits)
    name = f"match_boxes_{str(dtype).removeprefix('torch.')}"
    emulator.launch(name, *parameters, gt, anchors, valid, block_best, truth_best, matches, ious)
    return matches, ious
