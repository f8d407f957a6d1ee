"""The same for torchvision's kernels: a thread an output element, contiguous float32."""

from __future__ import annotations

import torch

from structops.bench.gpu_cost.geometry import LINE, SECTOR, WARP, Map, pieces_of_planes
from structops.bench.gpu_cost.kernels import Call, Launch, ceil_div, ps_sectors, rate_of, sectors_read, total
from structops.bench.gpu_cost.sass import Kernel

THREADS, MOST_BLOCKS = 512, 4096


def peer(maps: list[Map], channels: int, kernel: str) -> list[Launch]:
    """A launch for each map that has RoIs.

    Those that sample go round the samples down and across, with four corners each; those that do not, round the pixels
    of a bin; RoI Pool's backward has no loop, since it noted the one pixel that it adds to.
    """
    return [_launch(m, channels, kernel) for m in maps if m.rois]


def _launch(m: Map, channels: int, kernel: str) -> Launch:
    position_sensitive, backward = kernel.startswith("ps_"), "backward" in kernel
    warps_a_roi = channels / WARP if position_sensitive else channels * m.pooled**2 / WARP
    blocks = min(ceil_div(int(m.rois * warps_a_roi * WARP), THREADS), MOST_BLOCKS)
    down, across = m.samples
    corners = 4
    if not down.any():
        down, across, corners = m.row_counts.amax(1), m.column_counts.amax(1), 1
    noted = kernel.startswith("roi_pool_backward")
    visits = torch.ones(m.rois) if noted else down * across * corners

    def instructions(code: Kernel) -> float:
        started = blocks * THREADS / WARP * len(code.body.own)
        if noted:
            return started + m.rois * warps_a_roi * len(code.body.inner[0].own)
        payload = ("REDG", "ATOMG") if backward else ("LDG",)
        item, row, column = code.hottest(*payload, depth=3)
        around, each = rate_of(row, column, *payload)
        return started + warps_a_roi * total(len(item.own) + down * (around + each * corners * across))

    lines = warps_a_roi * total(visits * pieces_of_planes(m, 4, LINE))
    planes = Call(channels, torch.float32, False)
    if backward:  # additions happen in the L2 cache: each goes there
        sectors = warps_a_roi * total(visits * pieces_of_planes(m, 4, SECTOR))
    else:
        sectors = sectors_read(m, planes, False)
    if position_sensitive:  # no two lanes of a warp share a line
        sectors = lines = total(visits) * channels if backward else ps_sectors(m, planes)
    return Launch(kernel, THREADS, 0, instructions, sectors, lines)
